//! Kubernetes, with a real API server, etcd, kubectl of two ages, curl, helm and the Python client. Run by name: `cargo xtask test e2e
//! kubernetes`, because the API server is built first.

mod clients;
mod forbidden;
mod helm;
mod leak;
mod protobuf;
mod streams;
mod support;
mod verbs;
