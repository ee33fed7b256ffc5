//! SSH under a policy: what is refused however it is dressed up, what ordinary jobs run, and what a real shell would run.

mod disguises;
mod ordinary;
mod shell;
mod support;
