//! `xtask layers`: the pure crates stay pure, and depend on each other in one direction.
//!
//! `mask <- policy <- protocol <- agent`, `record` alone. None of the four reaches a runtime, a
//! socket, a file or a clock: not through a dependency (`cargo tree` is asked, feature by
//! feature), and not through the standard library (the sources are read).

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{host, host::Host};

struct Layer {
    name: &'static str,
    /// Which of the workspace's own crates it may reach.
    may: &'static [&'static str],
}

const LAYERS: &[Layer] = &[
    Layer { name: "mask", may: &[] },
    Layer { name: "policy", may: &["mask"] },
    Layer { name: "protocol", may: &["mask", "policy"] },
    Layer { name: "record", may: &[] },
];

const CRATES: &str = "gateway-agent/crates";

/// Packages that bring a runtime, sockets, files or the kernel.
const BANNED: &[&str] = &[
    "async-io",
    "async-std",
    "aya",
    "aya-log",
    "axum",
    "curl",
    "h2",
    "hyper",
    "hyper-util",
    "io-uring",
    "mio",
    "native-tls",
    "nix",
    "polling",
    "quinn",
    "reqwest",
    "rusqlite",
    "russh",
    "rustls",
    "sd-notify",
    "signal-hook",
    "smol",
    "socket2",
    "tokio",
    "tokio-postgres",
    "tokio-rustls",
    "tonic",
    "tracing-subscriber",
    "ureq",
];

/// Packages that are fine as such, but not with these features.
const BANNED_FEATURES: &[(&str, &[&str])] =
    &[("rustix", &["net", "fs", "process", "mount", "event", "io_uring"])];

/// Doors in the standard library.
const DOORS: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process::Command",
    "std::os::unix::net",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
    "File::open",
    "File::create",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
];

pub(crate) fn run(host: &Host) -> Result<()> {
    let mut found = Vec::new();
    for layer in LAYERS {
        let tree = tree(host, &host.root, layer.name)?;
        found
            .extend(trespasses(layer, &tree).with_context(|| format!("reading the tree of {}", layer.name))?);
        found.extend(doors(&host.root.join(CRATES).join(layer.name).join("src"))?);
    }
    if !found.is_empty() {
        for trespass in &found {
            eprintln!("layers: {trespass}");
        }
        bail!(
            "{} trespass(es): mask, policy, protocol and record are state machines over bytes; \
             time is an argument, bytes come from the caller. What does I/O belongs in gateway-agent/src",
            found.len()
        );
    }
    println!(
        "layers: mask <- policy <- protocol <- agent, record alone; no runtime, socket, file or clock below the agent"
    );
    Ok(())
}

/// Each line: the depth, then the package, then its features.
fn tree(host: &Host, root: &Path, package: &str) -> Result<String> {
    host::output(host.cargo().current_dir(root).args([
        "tree",
        "--package",
        package,
        "--edges=normal",
        "--prefix=depth",
        "--charset=ascii",
        "--format= {p}|{f}",
    ]))
}

/// What a layer reaches and must not, each with the way to it.
fn trespasses(layer: &Layer, tree: &str) -> Result<Vec<String>> {
    let ours: Vec<&str> =
        LAYERS.iter().map(|layer| layer.name).chain(["gateway-agent", "gateway-common"]).collect();
    let mut way: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let (depth, rest) = line.split_once(' ').with_context(|| format!("no depth in {line:?}"))?;
        let depth: usize = depth.parse().with_context(|| format!("no depth in {line:?}"))?;
        let (package, features) = rest.split_once('|').with_context(|| format!("no features in {line:?}"))?;
        let name = package.split_whitespace().next().with_context(|| format!("no name in {line:?}"))?;
        // `(*)` ends the line of a package that was shown before.
        let features: Vec<&str> = features.trim_end_matches("(*)").trim().split(',').collect();
        way.truncate(depth);
        way.push(name);
        if depth == 0 {
            continue;
        }
        let way = way.join(" -> ");
        if ours.contains(&name) && !layer.may.contains(&name) {
            found.push(format!("{} must not depend on {name}: {way}", layer.name));
        }
        if BANNED.contains(&name) {
            found.push(format!("{} must not reach {name}: {way}", layer.name));
        }
        for (_, banned) in BANNED_FEATURES.iter().filter(|(package, _)| *package == name) {
            for feature in banned.iter().filter(|feature| features.contains(feature)) {
                found.push(format!("{} must not reach {name} with feature {feature}: {way}", layer.name));
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// Uses of the standard library's doors in the sources below a folder, tests left out.
fn doors(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests" || stem == "test_support");
        if path.is_dir() {
            if !is_test {
                found.extend(doors(&path)?);
            }
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") || is_test {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for (number, line) in text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]") {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(door) = DOORS.iter().find(|door| code.contains(*door)) {
                found.push(format!("{}:{}: uses {door}", path.display(), number + 1));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> &'static Layer {
        LAYERS.iter().find(|layer| layer.name == name).expect("a layer")
    }

    #[test]
    fn the_workspace_as_it_is_keeps_its_layers() {
        run(&Host::find().expect("a workspace")).expect("layers");
    }

    #[test]
    fn a_runtime_is_named_with_the_way_to_it() {
        let tree =
            "0 policy v0.1.0 (/w/policy)|\n1 serde v1.0.0|derive\n1 helper v0.2.0|\n2 tokio v1.50.0|net,rt\n";
        let found = trespasses(layer("policy"), tree).expect("a tree");
        assert_eq!(found, ["policy must not reach tokio: policy -> helper -> tokio"]);
    }

    #[test]
    fn dependencies_point_one_way() {
        let tree = "0 mask v0.1.0 (/w/mask)|\n1 policy v0.1.0 (/w/policy)|\n";
        assert_eq!(
            trespasses(layer("mask"), tree).expect("a tree"),
            ["mask must not depend on policy: mask -> policy"]
        );
        assert!(
            trespasses(layer("protocol"), "0 protocol v0.1.0|\n1 policy v0.1.0|\n2 mask v0.1.0|\n")
                .expect("a tree")
                .is_empty()
        );
    }

    #[test]
    fn a_feature_can_be_the_trespass() {
        let tree = "0 record v0.1.0|\n1 rustix v1.0.0|std,net\n1 rustix v1.0.0|std\n";
        assert_eq!(
            trespasses(layer("record"), tree).expect("a tree"),
            ["record must not reach rustix with feature net: record -> rustix"]
        );
    }

    /// The real thing: someone adds tokio to crates/policy.
    #[test]
    fn tokio_in_policy_is_found_by_cargo_itself() {
        let host = Host::find().expect("a workspace");
        let copy = tempfile::tempdir().expect("a folder");
        let members: Vec<_> = ["", "gateway-common", "gateway-ebpf", "gateway-agent", "xtask", "tests"]
            .into_iter()
            .map(str::to_owned)
            .chain(LAYERS.iter().map(|layer| format!("{CRATES}/{}", layer.name)))
            .collect();
        for member in &members {
            let (from, to) = (host.root.join(member), copy.path().join(member));
            fs::create_dir_all(to.join("src")).expect("a folder");
            fs::copy(from.join("Cargo.toml"), to.join("Cargo.toml")).expect("a manifest");
            stub_targets(&to);
        }
        fs::copy(host.root.join("Cargo.lock"), copy.path().join("Cargo.lock")).expect("a lock file");
        let manifest = copy.path().join(CRATES).join("policy/Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        let before = tree(&host, copy.path(), "policy").expect("a tree");
        assert!(trespasses(layer("policy"), &before).expect("a tree").is_empty());

        fs::write(&manifest, text.replace("[dependencies]", "[dependencies]\ntokio.workspace = true"))
            .expect("written");
        let after = tree(&host, copy.path(), "policy").expect("a tree");
        let found = trespasses(layer("policy"), &after).expect("a tree");
        assert!(found.contains(&"policy must not reach tokio: policy -> tokio".to_owned()), "{found:?}");
        let after = tree(&host, copy.path(), "protocol").expect("a tree");
        let found = trespasses(layer("protocol"), &after).expect("a tree");
        assert!(
            found.contains(&"protocol must not reach tokio: protocol -> policy -> tokio".to_owned()),
            "{found:?}"
        );
    }

    /// cargo wants the files that a manifest names, not what is in them.
    fn stub_targets(member: &Path) {
        let text = fs::read_to_string(member.join("Cargo.toml")).expect("a manifest");
        let named = text.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"'));
        for file in named.chain(["src/lib.rs", "src/main.rs"]) {
            let path = member.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, "fn main() {}\n").expect("a stub");
        }
    }

    #[test]
    fn the_standard_library_has_doors_too() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(
            folder.path().join("lib.rs"),
            "// std::fs in words is fine\nlet now = SystemTime::now();\n#[cfg(test)]\nmod tests { use std::fs; }\n",
        )
        .expect("written");
        let found = doors(folder.path()).expect("read");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("lib.rs:2: uses SystemTime::now"), "{found:?}");
    }
}
