//! Commands, relations and columns: what has to be covered, and by which rule.

use policy::*;

use super::{READ, delete, policy};
use crate::support::*;

#[test]
fn every_relation_has_to_be_covered() {
    let policy = policy(&[READ]);
    let (_, reason) = denied(ask(&policy, &select(&["public.orders.id", "secret.keys.value"])));
    assert!(reason.contains("secret.keys") && !reason.contains("reading public.orders"), "{reason}");
}

#[test]
fn rules_cover_together_what_none_covers_alone() {
    let policy = policy(&[
        ("a", "allow", "statements: {classes: [read], relations: [public.orders]}, limits: {rows: 10}"),
        (
            "b",
            "allow",
            "statements: {classes: [read], relations: [public.items]}, limits: {rows: 20, bytes: 5}, record: results",
        ),
        ("c", "allow", "statements: {classes: [read], relations: [public.unrelated]}, limits: {rows: 1}"),
    ]);
    let statement = select(&["public.orders.id", "public.items.id"]);
    let verdict = ask(&policy, &statement);
    assert_eq!(rules(&verdict), ["a", "b"]);
    let obligations = allowed(verdict);
    assert_eq!(obligations.limits, Limits { rows: Some(10), bytes: Some(5) }, "the strictest of all");
    assert_eq!(obligations.record, Recording::Results, "the most of all");
}

#[test]
fn reading_is_not_writing() {
    let policy = policy(&[READ]);
    let (_, reason) = denied(ask(&policy, &delete("public.orders")));
    assert!(reason.contains("delete on public.orders"), "{reason}");
    denied(ask(&policy, &statement("drop_table", Class::Ddl).on(Access::Define, "public.orders")));
}

#[test]
fn writing_one_relation_does_not_let_another_be_read() {
    let policy = policy(&[("write", "allow", "statements: {classes: [write], relations: [public.*]}")]);
    allowed(ask(&policy, &delete("public.orders").filters("public.orders.id")));
    let copy = statement("insert", Class::Write).on(Access::Write, "public.log").stores("public.secrets.v");
    assert!(denied(ask(&policy, &copy)).1.contains("reading public.secrets"));
}

#[test]
fn a_rule_for_inserts_lets_nothing_be_read_back() {
    let policy = policy(&[("log", "allow", "statements: {kinds: [insert], relations: [public.log]}")]);
    let insert = statement("insert", Class::Write).writes("public.log.line").on(Access::Write, "public.log");
    allowed(ask(&policy, &insert));
    assert!(denied(ask(&policy, &insert.reads("public.log.line"))).1.contains("reading public.log.line"));
}

#[test]
fn a_delete_inside_a_select_is_a_delete() {
    let hidden = select(&["public.orders.id"]).with("delete").on(Access::Write, "public.orders");
    let hidden = Statement { class: Class::Write, ..hidden };
    denied(ask(&policy(&[READ]), &hidden));
    let deny = ("no", "deny", "statements: {kinds: [delete], relations: [public.orders]}");
    let write = ("w", "allow", "statements: {classes: [write], relations: [public.*]}");
    assert_eq!(denied(ask(&policy(&[READ, write, deny]), &hidden)).0, "no");
    let approve = ("ok", "approve", "statements: {kinds: [delete], relations: [public.orders]}");
    assert!(waits(ask(&policy(&[READ, write, approve]), &hidden)).0.contains(&"ok".to_owned()));
    allowed(ask(&policy(&[READ, write]), &hidden));
}

#[test]
fn one_commands_grant_is_not_lent_to_another() {
    // INSERT is fine on anything, DELETE on sessions only; which of them meets orders is not told.
    let policy = policy(&[
        READ,
        ("ins", "allow", "statements: {kinds: [insert], relations: [public.*]}"),
        ("del", "allow", "statements: {kinds: [delete], relations: [public.sessions]}"),
    ]);
    let both = statement("insert", Class::Write)
        .with("delete")
        .on(Access::Write, "public.orders")
        .on(Access::Write, "public.sessions");
    assert!(denied(ask(&policy, &both)).1.contains("delete on public.orders"));
}

#[test]
fn a_class_raised_by_something_unnamed_needs_a_rule_for_the_class() {
    let locking = Statement { class: Class::Write, ..select(&["public.orders.id"]) };
    assert!(denied(ask(&policy(&[READ]), &locking)).1.contains("class write"));
    let write = ("w", "allow", "statements: {classes: [write], relations: [public.*]}");
    allowed(ask(&policy(&[READ, write]), &locking));
}

#[test]
fn an_unknown_nested_command_counts_as_code() {
    let odd = select(&["public.orders.id"]).with("frobnicate");
    denied(ask(&policy(&[READ]), &odd));
}

#[test]
fn names_without_a_schema_are_looked_up_along_the_search_path() {
    let policy = load(
        "rules:\n  - { id: read, effect: allow, subjects: [job], resources: [orders, reports], statements: {classes: [read], relations: [public.*]} }\n",
    );
    allowed(ask(&policy, &select(&["orders.id"])));
    let (_, reason) = denied(ask_as(&policy, "job", "reports", &select(&["orders.id"]), None));
    assert!(reason.contains("app.orders"), "may be app.orders there: {reason}");
}

#[test]
fn a_column_of_some_relation_has_to_be_granted_in_all() {
    let columns = ("c", "allow", "statements: {classes: [read], columns: [public.customers.id]}");
    let orders = ("o", "allow", "statements: {classes: [read], relations: [public.orders]}");
    let joined = select(&["id"]).on(Access::Read, "public.orders").on(Access::Read, "public.customers");
    allowed(ask(&policy(&[columns, orders]), &joined));
    let secret = select(&["ssn"]).on(Access::Read, "public.orders").on(Access::Read, "public.customers");
    assert!(denied(ask(&policy(&[columns, orders]), &secret)).1.contains("reading public.customers.ssn"));
}

#[test]
fn columns_grant_only_themselves() {
    let policy = policy(&[
        ("c", "allow", "statements: {classes: [read], columns: [public.customers.id, public.customers.n*]}"),
        (
            "u",
            "allow",
            "statements: {kinds: [update], columns: [public.customers.name, public.customers.id]}",
        ),
        ("i", "allow", "statements: {kinds: [insert, delete], columns: [public.customers.name]}"),
    ]);
    allowed(ask(&policy, &select(&["public.customers.id", "public.customers.name"])));
    denied(ask(&policy, &select(&["public.customers.ssn"])));
    denied(ask(&policy, &select(&["public.customers.*"])));
    denied(ask(&policy, &select(&["public.customers.id"]).filters("public.customers.ssn")));
    let update = |column: &str| {
        statement("update", Class::Write)
            .on(Access::Write, "public.customers")
            .writes(column)
            .filters("public.customers.id")
    };
    allowed(ask(&policy, &update("public.customers.name")));
    denied(ask(&policy, &update("public.customers.ssn")));
    // A delete is of whole rows, whatever columns a rule names; so is an insert that lists none.
    denied(ask(&policy, &delete("public.customers")));
    denied(ask(&policy, &statement("insert", Class::Write).on(Access::Write, "public.customers")));
}

#[test]
fn a_whole_relation_granted_for_one_command_does_not_open_its_columns_to_another() {
    let policy = policy(&[
        ("i", "allow", "statements: {kinds: [insert], relations: [public.customers]}"),
        ("c", "allow", "statements: {classes: [read], columns: [public.customers.id]}"),
    ]);
    denied(ask(&policy, &select(&["public.customers.ssn"])));
}

#[test]
fn a_statement_with_too_many_names_is_refused_quickly() {
    let mut monster = select(&[]);
    for index in 0..1_000 {
        monster = monster.on(Access::Read, &format!("t{index}"));
    }
    for index in 0..1_000 {
        monster.columns.push(ColumnUse {
            column: column(&format!("c{index}")),
            output: true,
            predicate: false,
            stored: false,
            fails: false,
            written: false,
            shown_through: false,
        });
    }
    assert_eq!(denied(ask(&policy(&[READ]), &monster)).0, builtin::TOO_COMPLEX);
}
