//! Spellings of addresses: IPv6, mapped, unspecified, translated, routed.

use gateway_agent::kernel::Reason::{self, Special, Tunnelled, Undeclared};

use super::{
    BEYOND_V4, BEYOND_V6, RESOURCE,
    steps::{addr, datagram, send, socket, tcp, to, udp, udp_connected},
};
use crate::{
    attempt::{Attempt, Expect, both, refused},
    ground::{FAR_V4, FAR_V6, World},
    scenario::{Scenario, scenarios},
};

const U: &[Reason] = &[Undeclared];

pub(super) fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    let gateway =
        |dialled: &str, original: &str| Expect::Gateway { original: addr(original), shown: addr(dialled) };

    // Plain, in both families.
    for (rows, host) in [
        (&[41_u8][..], FAR_V4.to_owned()),
        (&[41], BEYOND_V4.to_owned()),
        (&[1, 41], format!("[{FAR_V6}]")),
        (&[1], format!("[{BEYOND_V6}]")),
    ] {
        for port in [22, 80, 443, 5433] {
            let dial = format!("{host}:{port}");
            all.push(refused(rows, format!("tcp to {dial}"), tcp(&dial), U));
        }
    }
    for dial in [format!("{FAR_V4}:{RESOURCE}"), format!("[{FAR_V6}]:{RESOURCE}")] {
        all.push(both(&[1], format!("tcp to the resource {dial}"), tcp(&dial), gateway(&dial, &dial)));
    }

    // One IPv4 host in IPv6 words.
    let original = format!("{FAR_V4}:{RESOURCE}");
    for (rows, spelling) in [(&[2_u8][..], format!("::ffff:{FAR_V4}")), (&[6], format!("64:ff9b::{FAR_V4}"))]
    {
        let dial = format!("[{spelling}]:80");
        all.push(refused(rows, format!("tcp to {dial}"), tcp(&dial), U));
        let dial = format!("[{spelling}]:{RESOURCE}");
        all.push(both(rows, format!("tcp to the resource {dial}"), tcp(&dial), gateway(&dial, &original)));
    }
    let mapped = format!("[::ffff:{BEYOND_V4}]:443");
    all.push(refused(&[2], format!("tcp to {mapped}"), tcp(&mapped), U));
    all.push(refused(&[3], format!("sendto {mapped}"), udp(&mapped), U));
    all.push(refused(&[3], format!("udp connect to {mapped}"), udp_connected(&mapped), U));

    // An IPv4 address handed to an IPv6 socket.
    let plain = format!("{BEYOND_V4}:9999");
    for (name, step) in [("sendto", send(&plain)), ("connect", to(&plain))] {
        let steps = vec![socket(libc::AF_INET6, libc::SOCK_DGRAM, 0), step];
        all.push(refused(&[4], format!("{name} AF_INET on an IPv6 udp socket"), steps, U));
    }

    // Nowhere in particular is loopback.
    for host in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "[64:ff9b::]"] {
        for port in [22, RESOURCE, 8080] {
            let dial = format!("{host}:{port}");
            all.push(refused(&[5], format!("tcp to {dial}"), tcp(&dial), U));
            all.push(refused(&[5], format!("udp to {dial}"), udp(&dial), U));
        }
    }

    // Through somebody else's translator.
    for host in [
        "2002:c633:6402::1",
        "2001:0:c633:6402:8000:63bf:3fff:fdd2",
        "fe80::5efe:198.51.100.2",
        "2001:db8::200:5efe:198.51.100.2",
        "64:ff9b:1::198.51.100.2",
        "::198.51.100.2",
    ] {
        let dial = format!("[{host}]:{RESOURCE}");
        all.push(refused(&[6], format!("tcp to {dial}"), tcp(&dial), &[Tunnelled]));
        all.push(refused(&[6], format!("udp to {dial}"), udp(&dial), &[Tunnelled]));
    }

    // Loopback services, by any of its names.
    for host in ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
        for port in [22, 3128, RESOURCE] {
            let dial = format!("{host}:{port}");
            all.push(refused(&[38], format!("tcp to {dial}"), tcp(&dial), U));
            all.push(refused(&[38], format!("udp to {dial}"), udp(&dial), U));
        }
    }

    // Where clouds keep credentials.
    for host in ["169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "169.254.170.2"] {
        let dial = format!("{host}:80");
        all.push(refused(&[40], format!("metadata at {dial}"), tcp(&dial), &[Special]));
        all.push(refused(&[40], format!("metadata at {dial} by udp"), udp(&dial), &[Special]));
    }
    all.push(refused(
        &[40],
        "link-local with a scope",
        vec![
            socket(libc::AF_INET6, libc::SOCK_STREAM, 0),
            crate::ask::Step::Connect {
                to: std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 2).into(),
            },
        ],
        &[Special],
    ));
    for group in ["224.0.0.251:5353", "255.255.255.255:9999", "[ff02::fb]:5353"] {
        all.push(refused(&[40, 13], format!("multicast or broadcast to {group}"), udp(group), &[Special]));
    }
    // The same socket, first refused, then elsewhere.
    let dial = format!("{BEYOND_V4}:9999");
    all.push(refused(&[3], "udp, unconnected after a refusal", vec![datagram(&dial), send(&dial)], U));
    all
}

pub(super) const SCENARIOS: &[Scenario] = scenarios![
    [1, 41] a_redirected_connect_arrives_with_its_origin,
];

fn a_redirected_connect_arrives_with_its_origin() {
    let World { ground, gateway, mut job } = World::start();
    for (dialled, original) in [
        (format!("{FAR_V4}:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
        (format!("[{FAR_V6}]:{RESOURCE}"), format!("[{FAR_V6}]:{RESOURCE}")),
        (format!("[::ffff:{FAR_V4}]:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
        (format!("[64:ff9b::{FAR_V4}]:{RESOURCE}"), format!("{FAR_V4}:{RESOURCE}")),
    ] {
        let peer = job.connect(&dialled);
        assert_eq!(peer, addr(&dialled), "the client sees the peer that it asked for");
        let flow = gateway.flow().unwrap();
        assert_eq!(flow.original, addr(&original));
        assert_eq!(flow.job, ground.id("job"));
        assert_eq!((flow.process.pid, flow.process.uid), (job.pid(), 0));
        assert_eq!(flow.process.comm, "kernel-actor");
    }
    assert_eq!(ground.canary(), 0);
    assert_eq!(gateway.count(Reason::Redirected), 4);
    let origins = gateway.kernel.status().unwrap().maps.into_iter().find(|map| map.name == "ORIGINS");
    assert_eq!(origins.unwrap().used, 0, "each record is taken once");
}
