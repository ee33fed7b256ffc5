//! Masked columns: where they come out, and what they may not decide.

use mask::{Partial, Transform};
use policy::*;

use super::{READ, delete, policy, rule};
use crate::support::*;

#[test]
fn a_masked_value_does_not_decide_whether_a_statement_fails() {
    let masked = |rest: &str| {
        load(&format!(
            "rules:\n{}masks: [{{ id: m, columns: [public.customers.ssn], transform: redact }}]\n",
            rule("r", "allow", &format!("statements: {{classes: [read], relations: [public.*]{rest}}}"))
        ))
    };
    let fails = |column: &str| select(&[]).uses(column, |used| (used.output, used.fails) = (true, true));
    let (rule, reason) = denied(ask(&masked(""), &fails("public.customers.ssn")));
    assert_eq!(rule, builtin::MASKED_PREDICATE);
    assert!(reason.contains("whether the statement fails"), "{reason}");
    allowed(ask(&masked(""), &fails("public.customers.name")));
    allowed(ask(&masked(", masked_predicates: true"), &fails("public.customers.ssn")));

    let mut unseen = select(&["public.customers.name"]);
    unseen.fails_unseen = true;
    denied(ask(&masked(""), &unseen));
    allowed(ask(&policy(&[READ]), &unseen));
}

const MASKS: &str = r#"
masks:
  - { id: pii, resources: [orders], columns: [public.customers.email, "public.*.ssn"], transform: redact }
  - { id: card, resources: [orders], columns: [public.customers.card], transform: {partial: {keep_last: 4}} }
  - { id: others, subjects: [other], columns: [public.orders.id], transform: null }
  - { id: found, subjects: [job], detectors: [email, card], transform: redact }
"#;

fn masked_policy(more: &str) -> Policy {
    let read = rule(
        "read",
        "allow",
        &format!(
            "statements: {{classes: [read, write, ddl, session, code], relations: [public.*], opaque: true{more}}}"
        ),
    );
    load(&format!("rules:\n{read}{MASKS}"))
}

fn positions(obligations: &Obligations) -> Vec<usize> {
    match &obligations.outputs {
        OutputMasks::None => vec![],
        OutputMasks::Columns(masks) => {
            masks.iter().enumerate().filter(|(_, m)| m.is_some()).map(|(at, _)| at).collect()
        }
        OutputMasks::Unknown => vec![usize::MAX],
    }
}

#[test]
fn masks_follow_lineage() {
    let policy = masked_policy("");
    let outputs = |statement: &Statement| positions(&allowed(ask(&policy, statement)));
    assert_eq!(outputs(&select(&["public.customers.id", "public.customers.email"])), [1]);
    assert_eq!(outputs(&select(&["public.anything.ssn"])), [0]);
    assert_eq!(outputs(&select(&["public.customers.id"])), [] as [usize; 0]);
    assert_eq!(
        outputs(&select(&["email"]).on(Access::Read, "public.orders")),
        [0],
        "a column of who knows what"
    );
    assert_eq!(outputs(&select(&["customers.email"])), [0], "a schema not told");
    assert_eq!(outputs(&select(&["public.customers.*"])), [0]);
    assert_eq!(outputs(&select(&["public.orders.*"])), [0], "may have an ssn");
    assert_eq!(
        outputs(&select(&[]).returns(Outputs::Columns(vec![Lineage::Unknown, Lineage::Known(vec![])]))),
        [0]
    );
    assert_eq!(outputs(&select(&[]).returns(Outputs::Unknown)), [usize::MAX]);
    assert_eq!(outputs(&delete("public.customers").reads("public.customers.email")), [0], "RETURNING");
    let mixed = Lineage::Known(vec![column("public.customers.id"), column("public.customers.card")]);
    let obligations = allowed(ask(&policy, &select(&[]).returns(Outputs::Columns(vec![mixed]))));
    let OutputMasks::Columns(masks) = &obligations.outputs else { panic!() };
    assert_eq!(
        masks[0].unwrap().transform(true),
        Transform::Partial(Partial { keep_first: 0, keep_last: 4 })
    );
    assert_eq!(
        masks[0].unwrap().transform(false),
        Transform::Redact,
        "parts of what was computed are not parts of the value"
    );
}

#[test]
fn several_masks_on_a_column_are_as_strong_as_the_strongest() {
    let read = rule("read", "allow", "statements: {classes: [read], relations: [public.*]}");
    let policy = load(&format!(
        "rules:\n{read}masks:\n  - {{ id: a, columns: [public.c.x], transform: {{partial: {{keep_last: 4}}}} }}\n  - {{ id: b, columns: [public.c.*], transform: hash }}\n"
    ));
    let columns = allowed(ask(&policy, &select(&["public.c.x"]))).columns.unwrap();
    assert_eq!(columns.find(Some("public"), Some("c"), "x"), Some(Transform::Hash));
    assert_eq!(columns.find(Some("public"), Some("d"), "x"), None);
}

#[test]
fn masks_are_for_their_subjects_and_resources() {
    let policy = masked_policy("");
    let obligations = allowed(ask(&policy, &select(&["public.orders.id"])));
    let columns = obligations.columns.unwrap();
    assert_eq!(columns.find(Some("public"), Some("orders"), "id"), None, "that mask is for another subject");
    assert_eq!(columns.find(Some("public"), Some("customers"), "email"), Some(Transform::Redact));
    assert_eq!(obligations.detectors.unwrap().names().collect::<Vec<_>>(), ["email", "card"]);
    let plain = allowed(ask(&self::policy(&[READ]), &select(&["public.customers.email"])));
    assert!(plain.columns.is_none() && plain.detectors.is_none() && positions(&plain).is_empty());
}

#[test]
fn a_masked_column_decides_nothing() {
    let filtered = select(&["public.customers.id"]).filters("public.customers.email");
    let (rule, reason) = denied(ask(&masked_policy(""), &filtered));
    assert_eq!(rule, builtin::MASKED_PREDICATE);
    assert!(reason.contains("public.customers.email"), "{reason}");
    assert_eq!(
        denied(ask(&masked_policy(""), &select(&[]).on(Access::Read, "public.customers").filters("email"))).0,
        builtin::MASKED_PREDICATE
    );
    allowed(ask(&masked_policy(", masked_predicates: true"), &filtered));
    allowed(ask(&masked_policy(""), &select(&["public.customers.email"]).filters("public.customers.id")));
}

#[test]
fn only_the_rule_that_reads_a_masked_column_can_let_it_decide() {
    let rules = format!(
        "rules:\n{}{}{MASKS}",
        rule("read", "allow", "statements: {classes: [read], relations: [public.*]}"),
        rule(
            "lax",
            "allow",
            "statements: {classes: [read], relations: [public.orders], masked_predicates: true}"
        ),
    );
    let filtered = select(&["public.orders.id"]).filters("public.customers.email");
    assert_eq!(denied(ask(&load(&rules), &filtered)).0, builtin::MASKED_PREDICATE);
}

#[test]
fn masked_values_are_not_laundered() {
    let policy = masked_policy(", masked_predicates: true");
    let laundering = |statement: &Statement| denied(ask(&policy, statement)).0 == builtin::LAUNDERING;
    assert!(laundering(
        &statement("insert", Class::Write).on(Access::Write, "public.copy").stores("public.customers.email")
    ));
    assert!(laundering(
        &statement("create_table_as", Class::Ddl).on(Access::Define, "public.copy").stores("customers.email")
    ));
    let view = Statement { outputs: Outputs::None, ..select(&["public.customers.email"]) };
    assert!(laundering(
        &Statement { kind: "create_table", class: Class::Ddl, ..view }.on(Access::Define, "public.v")
    ));
    assert!(laundering(
        &statement("update", Class::Write).on(Access::Write, "public.customers").stores("public.customers.*")
    ));
    // Writing new values is not reading old ones; PREPARE and DECLARE store nothing.
    allowed(ask(
        &policy,
        &statement("update", Class::Write)
            .on(Access::Write, "public.customers")
            .writes("public.customers.email"),
    ));
    let prepare = Statement {
        kind: "prepare",
        defines: Some(Named::Prepared("p".into())),
        ..select(&["public.customers.email"])
    };
    assert_eq!(positions(&allowed(ask(&policy, &prepare.with("select")))), [0]);
}

#[test]
fn what_an_opaque_statement_returns_is_masked_whole() {
    let policy = masked_policy("");
    let call = select(&["public.orders.id"]).opaque();
    assert_eq!(positions(&allowed(ask(&policy, &call))), [usize::MAX]);
}
