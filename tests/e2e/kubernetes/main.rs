//! Kubernetes, with a real API server, etcd, kubectl of two ages, curl and the Python client. Run by name: `cargo xtask test e2e
//! kubernetes`, because the API server is built first.

mod clients;
mod forbidden;
mod leak;
mod streams;
mod support;
