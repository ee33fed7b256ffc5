//! Functions, the catalogue, and what cannot be seen.

use policy::*;

use super::{READ, policy};
use crate::support::*;

#[test]
fn functions_that_only_compute_need_no_mention() {
    let policy = policy(&[
        READ,
        ("f", "allow", "statements: {classes: [read], functions: [billing.total_of, \"app.*\"]}"),
    ]);
    let call = |name: &str| select(&["public.orders.id"]).calls(name);
    allowed(ask(&policy, &call("lower")));
    allowed(ask(&policy, &call("billing.total_of")));
    allowed(ask(&policy, &call("app.anything")));
    for name in
        ["pg_read_file", "pg_catalog.pg_read_file", "billing.other", "total_of", "set_config", "x.app.f"]
    {
        assert!(denied(ask(&policy, &call(name))).1.contains(&format!("calling {name}()")), "{name}");
    }
}

#[test]
fn what_a_rule_grants_to_one_command_is_not_granted_to_another_beside_it() {
    let only = |extra: &str| {
        policy(&[
            READ,
            ("d", "allow", &format!("statements: {{kinds: [delete], relations: [public.log], {extra}}}")),
        ])
    };
    let beside = |made: Statement| made.on(Access::Write, "public.log").with("delete");
    let call = select(&["public.orders.id"]).calls("app.f");
    let lets_f = only("functions: [app.f]");
    denied(ask(&lets_f, &call));
    let reason = denied(ask(&lets_f, &beside(call))).1;
    assert!(reason.contains("calling app.f() in select"), "{reason}");

    let set = select(&["public.orders.id"]).sets("my.x", Some("1"));
    let lets_set = only("settings: [my.x]");
    denied(ask(&lets_set, &set));
    denied(ask(&lets_set, &beside(set)));
    denied(ask(&only("opaque: true"), &beside(select(&["public.orders.id"]).opaque())));

    // Rows of an update, read back because a delete of nothing stands beside it.
    let columns = policy(&[
        ("u", "allow", "statements: {kinds: [update], columns: [public.customers.name]}"),
        ("d", "allow", "statements: {kinds: [delete], relations: [public.customers]}"),
    ]);
    let update = statement("update", Class::Write)
        .on(Access::Write, "public.customers")
        .uses("public.customers.name", |used| used.written = true)
        .reads("public.customers.ssn");
    denied(ask(&columns, &update));
    let reason = denied(ask(&columns, &update.with("delete"))).1;
    assert!(reason.contains("reading public.customers.ssn back in update"), "{reason}");
}

#[test]
fn what_only_carries_a_command_needs_no_grant_of_what_that_does() {
    let policy = policy(&[
        ("r", "allow", "statements: {classes: [read], relations: [public.*], functions: [app.f]}"),
        ("s", "allow", "statements: {kinds: [prepare, declare]}"),
    ]);
    for carrier in ["prepare", "declare"] {
        let carrying = statement(carrier, Class::Session)
            .with("select")
            .on(Access::Read, "public.orders")
            .reads("public.orders.id")
            .calls("app.f");
        allowed(ask(&policy, &carrying));
    }
}

#[test]
fn a_wildcard_never_covers_a_call_without_a_schema() {
    let policy = policy(&[
        READ,
        ("f", "allow", "statements: {classes: [read], functions: [\"public.*\", public.mine]}"),
    ]);
    let call = |name: &str| select(&["public.orders.id"]).calls(name);
    denied(ask(&policy, &call("pg_read_file")));
    allowed(ask(&policy, &call("mine")));
}

#[test]
fn the_catalogue_is_readable_but_for_its_secrets() {
    let policy = policy(&[("read", "allow", "statements: {classes: [read], relations: [\"*.*\"]}")]);
    for name in ["pg_catalog.pg_class", "pg_class", "information_schema.columns"] {
        allowed(ask(&policy, &select(&[&format!("{name}.x")])));
    }
    for name in [
        "pg_catalog.pg_authid",
        "pg_authid",
        "pg_catalog.pg_stat_activity",
        "pg_shadow",
        "pg_unheard_of",
        "pg_toast.pg_toast_1",
    ] {
        denied(ask(&policy, &select(&[&format!("{name}.x")])));
    }
    let written = ("w", "allow", "statements: {classes: [write], relations: [\"*.*\"]}");
    denied(ask(
        &self::policy(&[READ, written]),
        &statement("update", Class::Write).on(Access::Write, "pg_catalog.pg_class"),
    ));
}

#[test]
fn the_catalogue_can_be_closed_and_opened_by_name() {
    let closed =
        policy(&[("read", "allow", "statements: {classes: [read], relations: [public.*], catalog: false}")]);
    denied(ask(&closed, &select(&["pg_catalog.pg_class.oid"])));
    let named = policy(&[(
        "read",
        "allow",
        "statements: {classes: [read], relations: [pg_catalog.pg_stat_activity], catalog: false}",
    )]);
    allowed(ask(&named, &select(&["pg_catalog.pg_stat_activity.query"])));
}

#[test]
fn opaque_statements_need_a_rule_that_says_so_and_touch_every_restriction() {
    let code = |more: &str| format!("statements: {{classes: [code], {more}}}");
    let block = statement("do", Class::Code).opaque();
    assert!(
        denied(ask(&policy(&[("c", "allow", &code("relations: [public.*]"))]), &block))
            .1
            .contains("cannot be seen through")
    );
    let open = code("opaque: true");
    allowed(ask(&policy(&[("c", "allow", &open)]), &block));
    let deny = ("no", "deny", "statements: {kinds: [drop_table], relations: [public.orders]}");
    assert_eq!(denied(ask(&policy(&[("c", "allow", &open), deny]), &block)).0, "no");
    let approve = ("ok", "approve", "statements: {kinds: [delete]}");
    waits(ask(&policy(&[("c", "allow", &open), approve]), &block));
}
