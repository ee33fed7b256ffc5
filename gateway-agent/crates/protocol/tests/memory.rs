//! The compiler that reads bodies in PL/pgSQL is in C: reading many takes no more memory than reading few. Alone in its
//! process, whose memory is what is looked at.

use std::{fs, thread};

use protocol::postgres::sql::{Catalogue, STACK, analyse};

fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn reading_bodies_does_not_use_up_memory() {
    let measure = || {
        let good = "a := (SELECT max(id) FROM orders); ".repeat(40);
        let bad = "a := nosuch(; ".repeat(40);
        let read = |times: usize| {
            for _ in 0..times {
                for inside in [&good, &bad] {
                    let sql = format!("DO $$ DECLARE a int; BEGIN {inside} END $$");
                    assert!(analyse(&sql, &Catalogue::empty(), 1 << 16).is_ok());
                }
            }
        };
        read(100);
        let before = resident();
        read(400);
        resident().saturating_sub(before)
    };
    let grown = thread::Builder::new().stack_size(STACK).spawn(measure).unwrap().join().unwrap();
    assert!(grown < 8 << 20, "{grown} bytes more");
}
