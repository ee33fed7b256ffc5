//! Where the kernel keeps what the LSM programs have to read: offsets in its structures, from its own description of
//! them (BTF, Documentation/bpf/btf.rst). They differ from kernel to kernel, and the compiler of the programs knows
//! nothing of them.

use std::{fs, io};

use gateway_common::Offsets;

const PATH: &str = "/sys/kernel/btf/vmlinux";

/// Offsets of the running kernel.
///
/// # Errors
/// Says which structure or member is missing, for `status`.
pub(super) fn offsets() -> Result<Offsets, String> {
    let bytes = fs::read(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let btf = Btf::parse(&bytes).map_err(|error| format!("{PATH}: {error}"))?;
    let of =
        |structure, path: &[&str]| btf.offset(structure, path).map_err(|error| format!("{PATH}: {error}"));
    Ok(Offsets {
        known: 1,
        task_cgroups: of("task_struct", &["cgroups"])?,
        set_cgroup: of("css_set", &["dfl_cgrp"])?,
        cgroup_node: of("cgroup", &["kn"])?,
        cgroup_self: of("cgroup", &["self"])?,
        node_id: of("kernfs_node", &["id"])?,
        css_parent: of("cgroup_subsys_state", &["parent"])?,
        socket_sk: of("socket", &["sk"])?,
        sock_family: of("sock", &["__sk_common", "skc_family"])?,
        sock_cgroup: of("sock", &["sk_cgrp_data", "cgroup"])?,
    })
}

const MAGIC: u16 = 0xeb9f;

/// Bytes of a type's head.
const HEAD: usize = 12;

const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

struct Btf<'a> {
    types: &'a [u8],
    names: &'a [u8],
    /// Where each type begins; ids count from 1.
    begins: Vec<usize>,
}

struct Member<'a> {
    name: &'a str,
    kind: u32,
    /// Bytes; none for a bit field.
    offset: Option<u32>,
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> io::Result<Self> {
        if u16::from_ne_bytes(read(bytes, 0)?) != MAGIC {
            return Err(malformed());
        }
        let section = |at: usize| {
            let head = size(word(bytes, 4)?)?;
            let (from, length) = (size(word(bytes, at)?)?, size(word(bytes, at + 4)?)?);
            let from = head.checked_add(from).ok_or_else(malformed)?;
            bytes.get(from..).and_then(|rest| rest.get(..length)).ok_or_else(malformed)
        };
        let (types, names) = (section(8)?, section(16)?);
        let mut begins = vec![0];
        let mut at = 0;
        while at < types.len() {
            begins.push(at);
            let info = word(types, at + 4)?;
            let members = size(info & 0xffff)?;
            at += HEAD
                + match kind(info) {
                    // Pointers, forward declarations, typedefs, qualifiers, functions, floats, type tags.
                    2 | 7..=12 | 16 | 18 => 0,
                    // Integers, variables, declaration tags.
                    1 | 14 | 17 => 4,
                    ARRAY => 12,
                    // Enums, prototypes.
                    6 | 13 => members * 8,
                    // Sections, wide enums.
                    STRUCT | UNION | 15 | 19 => members * 12,
                    _ => return Err(malformed()),
                };
        }
        Ok(Self { types, names, begins })
    }

    /// Bytes from the beginning of a structure to a member, or to a member of that, and so on.
    fn offset(&self, structure: &str, path: &[&str]) -> Result<u32, String> {
        let missing = || format!("struct {structure} has no {}", path.join("."));
        let mut id = self.structure(structure).ok_or_else(|| format!("no struct {structure}"))?;
        let mut offset = 0u32;
        for name in path {
            let (at, kind) = self.member(id, name, 0).ok_or_else(missing)?;
            offset = offset.checked_add(at).ok_or_else(missing)?;
            id = kind;
        }
        Ok(offset)
    }

    fn structure(&self, name: &str) -> Option<u32> {
        (1..self.begins.len()).find_map(|id| {
            let id = u32::try_from(id).ok()?;
            let at = *self.begins.get(usize::try_from(id).ok()?)?;
            let info = word(self.types, at + 4).ok()?;
            // A mere declaration has no members.
            let whole = kind(info) == STRUCT && info & 0xffff != 0;
            (whole && self.name(word(self.types, at).ok()?)? == name).then_some(id)
        })
    }

    /// Where a member is, and its type; also one of an unnamed structure inside.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        // No kernel nests that deep; a loop would.
        if depth > 16 {
            return None;
        }
        let members = self.members(id)?;
        let direct = members.iter().find(|member| member.name == name);
        if let Some(member) = direct {
            return Some((member.offset?, member.kind));
        }
        members.iter().filter(|member| member.name.is_empty()).find_map(|member| {
            let (at, kind) = self.member(member.kind, name, depth + 1)?;
            Some((member.offset?.checked_add(at)?, kind))
        })
    }

    fn members(&self, id: u32) -> Option<Vec<Member<'a>>> {
        let mut at = *self.begins.get(usize::try_from(id).ok()?)?;
        let mut info = word(self.types, at + 4).ok()?;
        // Typedefs and qualifiers name what they stand for.
        for _ in 0..16 {
            if !matches!(kind(info), 8..=11 | 18) {
                break;
            }
            let next = word(self.types, at + 8).ok()?;
            at = *self.begins.get(usize::try_from(next).ok()?)?;
            info = word(self.types, at + 4).ok()?;
        }
        if !matches!(kind(info), STRUCT | UNION) {
            return None;
        }
        let with_bits = info >> 31 == 1;
        (0..usize::try_from(info & 0xffff).ok()?)
            .map(|number| {
                let from = at + HEAD + number * 12;
                let bits = word(self.types, from + 8).ok()?;
                let (bits, field) = if with_bits { (bits & 0x00ff_ffff, bits >> 24) } else { (bits, 0) };
                let offset = (field == 0 && bits % 8 == 0).then_some(bits / 8);
                Some(Member {
                    name: self.name(word(self.types, from).ok()?)?,
                    kind: word(self.types, from + 4).ok()?,
                    offset,
                })
            })
            .collect()
    }

    fn name(&self, at: u32) -> Option<&'a str> {
        let rest = self.names.get(usize::try_from(at).ok()?..)?;
        std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
    }
}

fn kind(info: u32) -> u32 {
    (info >> 24) & 0x1f
}

fn size(word: u32) -> io::Result<usize> {
    usize::try_from(word).map_err(io::Error::other)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    read(bytes, at).map(u32::from_ne_bytes)
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a description of types that can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of whatever kernel this runs on: a few that no kernel places elsewhere.
    #[test]
    fn this_kernels_structures_are_found() {
        let found = offsets().unwrap();
        assert_eq!(found.sock_family, 16, "behind two addresses, a hash and two ports");
        assert_eq!(found.cgroup_self, 0, "the first member");
        let rest = [
            found.task_cgroups,
            found.set_cgroup,
            found.cgroup_node,
            found.node_id,
            found.css_parent,
            found.socket_sk,
            found.sock_cgroup,
        ];
        assert!(rest.iter().all(|offset| *offset > 0 && offset % 8 == 0), "{found:?}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let bytes = std::fs::read(PATH).unwrap();
        let btf = Btf::parse(&bytes).unwrap();
        assert!(btf.offset("no_such_struct", &["x"]).unwrap_err().contains("no_such_struct"));
        assert!(btf.offset("socket", &["no_such"]).unwrap_err().contains("no_such"));
        // Through an unnamed union, and a typedef.
        assert!(btf.offset("sock", &["__sk_common", "skc_daddr"]).is_ok());
    }

    #[test]
    fn rubbish_is_an_error() {
        for bytes in [&[][..], &[0; 24], &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0]] {
            assert!(Btf::parse(bytes).is_err());
        }
    }
}
