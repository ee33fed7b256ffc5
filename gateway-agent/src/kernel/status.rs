//! What an operator asks first: is it on?

use std::{os::fd::AsFd as _, time::Duration};

use gateway_common::Hook;

use super::{About, Mode, about::about, hooks, sys};

#[derive(Debug, Clone)]
pub struct Status {
    pub mode: Mode,
    pub hooks: Vec<HookStatus>,
    /// `None` when no agent ever beat.
    pub heartbeat_age: Option<Duration>,
    pub maps: Vec<MapStatus>,
}

#[derive(Debug, Clone)]
pub struct HookStatus {
    pub hook: Hook,
    /// Id of the program behind the link, or why there is none.
    pub program: Result<u32, String>,
    pub about: About,
}

impl HookStatus {
    /// Off, and it should not be.
    pub fn is_missing(&self) -> bool {
        self.program.is_err() && !self.about.optional
    }
}

#[derive(Debug, Clone, Copy)]
pub struct MapStatus {
    pub name: &'static str,
    pub used: usize,
    pub limit: u32,
}

/// Asks the kernel anew: a link whose cgroup or namespace is gone holds a program that runs for nobody.
pub(super) fn hook(attached: &hooks::Attached) -> HookStatus {
    let program = match &attached.link {
        Ok(link) => match sys::link_info(link.as_fd()) {
            Ok(info) if info.target != 0 => Ok(info.program),
            Ok(_) => Err("its cgroup or network namespace is gone".to_owned()),
            Err(error) => Err(format!("reading the link: {error}")),
        },
        Err(reason) => Err(reason.clone()),
    };
    HookStatus { hook: attached.hook, program, about: about(attached.hook) }
}
