//! Where the kernel keeps what the LSM programs read. Each kernel has its own.

/// Bytes from the beginning of a kernel structure to a member.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    /// 1 when the rest is that of the running kernel.
    pub known: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub set_cgroup: u32,
    /// `cgroup.kn`
    pub cgroup_node: u32,
    /// `cgroup.self`
    pub cgroup_self: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
    /// `cgroup_subsys_state.parent`
    pub css_parent: u32,
    /// `socket.sk`
    pub socket_sk: u32,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u32,
    /// `sock.sk_cgrp_data.cgroup`
    pub sock_cgroup: u32,
}

impl Offsets {
    pub const UNKNOWN: Self = Self {
        known: 0,
        task_cgroups: 0,
        set_cgroup: 0,
        cgroup_node: 0,
        cgroup_self: 0,
        node_id: 0,
        css_parent: 0,
        socket_sk: 0,
        sock_family: 0,
        sock_cgroup: 0,
    };
}

const _: () = assert!(size_of::<Offsets>() == 40);

#[cfg(feature = "user")]
mod pod {
    // SAFETY: repr(C), Copy, made of integers only, and its size above leaves no room for padding.
    #[expect(unsafe_code, reason = "aya's marker for types that may cross into the kernel")]
    unsafe impl aya::Pod for super::Offsets {}
}
