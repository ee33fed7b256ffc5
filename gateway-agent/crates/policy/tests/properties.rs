//! What holds for every policy and every statement.

mod support;

use policy::*;
use proptest::{collection::vec, prelude::*, sample::select as one_of};
use support::*;

const RELATIONS: &[&str] = &["public.a", "public.b", "s.a", "a", "pg_catalog.pg_class", "pg_authid"];
const KINDS: &[(&str, Class)] = &[
    ("select", Class::Read),
    ("insert", Class::Write),
    ("update", Class::Write),
    ("delete", Class::Write),
    ("copy_to_program", Class::Code),
    ("prepare", Class::Session),
    ("create_table", Class::Ddl),
    ("begin", Class::Transaction),
];

fn any_statement() -> impl Strategy<Value = Statement> {
    let relation = (one_of(RELATIONS), one_of(&[Access::Read, Access::Write, Access::Define][..]));
    let column = (one_of(RELATIONS), one_of(&["x", "y", "*"][..]), any::<[bool; 5]>(), any::<bool>());
    (
        one_of(KINDS),
        vec(one_of(KINDS), 0..2),
        vec(relation, 0..3),
        vec(column, 0..3),
        vec(one_of(&["lower", "f", "public.f", "pg_read_file"][..]), 0..2),
        vec(one_of(&["datestyle", "role", "search_path", "my.x"][..]), 0..2),
        [0.1; 4].map(prop::bool::weighted),
    )
        .prop_map(
            |(
                (kind, class),
                nested,
                relations,
                columns,
                functions,
                settings,
                [opaque, stores, filters, fails],
            )| {
                let mut made = statement(kind, class);
                for (kind, class) in nested {
                    made = made.with(kind);
                    made.class = made.class.max(class);
                }
                for (relation, access) in relations {
                    made = made.on(access, relation);
                }
                for (relation, name, [output, predicate, stored, fails, written], owned) in columns {
                    let text = if owned { format!("{relation}.{name}") } else { name.to_owned() };
                    made = made.uses(&text, |used| {
                        (used.output, used.predicate, used.stored, used.fails, used.written) =
                            (output, predicate, stored, fails, written);
                    });
                }
                for function in functions {
                    made = made.calls(function);
                }
                for setting in settings {
                    made = made.sets(setting, Some("x"));
                }
                (made.stores_unseen, made.filters_unseen, made.fails_unseen) = (stores, filters, fails);
                if opaque { made.opaque() } else { made }
            },
        )
}

fn list(name: &str, texts: Vec<&'static str>) -> String {
    if texts.is_empty() { String::new() } else { format!(", {name}: [\"{}\"]", texts.join("\", \"")) }
}

fn any_matcher() -> impl Strategy<Value = String> {
    (
        vec(one_of(&["read", "write", "session", "code", "ddl", "transaction"][..]), 0..4),
        vec(one_of(&["select", "insert", "delete", "copy_to_program"][..]), 0..3),
        vec(one_of(&["public.*", "public.a", "*.*", "s.a", "pg_catalog.*"][..]), 0..3),
        vec(one_of(&["public.a.x", "*.*.*", "public.*.y"][..]), 0..2),
        vec(one_of(&["public.*", "public.f"][..]), 0..2),
        vec(one_of(&["role", "my.*"][..]), 0..2),
        any::<[bool; 2]>(),
    )
        .prop_map(|(classes, kinds, relations, columns, functions, settings, [opaque, predicates])| {
            format!(
                "statements: {{opaque: {opaque}, masked_predicates: {predicates}{}{}{}{}{}{}}}",
                list("classes", classes),
                list("kinds", kinds),
                list("relations", relations),
                list("columns", columns),
                list("functions", functions),
                list("settings", settings)
            )
        })
}

fn any_rules(effects: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, String)>> {
    vec((one_of(effects), any_matcher()), 0..5)
}

/// `None` when the rules do not make a policy: an empty matcher, say.
fn made(rules: &[(&str, String)], masks: &str) -> Option<Policy> {
    let mut text = String::from(POLICY_HEAD);
    text.push_str("rules:\n");
    for (index, (effect, matcher)) in rules.iter().enumerate() {
        text.push_str(&format!(
            "  - {{ id: r{index}, effect: {effect}, subjects: [job], resources: [orders], {matcher} }}\n"
        ));
    }
    text.push_str(masks);
    try_load(&text).ok()
}

fn rank(verdict: &Verdict) -> u8 {
    match verdict.effect {
        Effect::Allow(_) => 0,
        Effect::Approve(_) => 1,
        Effect::Deny(_) => 2,
    }
}

const ANY: &[&str] = &["allow", "approve", "deny"];
const MASKS: &str = "masks: [{ id: m, columns: [public.a.x], transform: redact }]\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_deny_rule_more_never_allows_more(rules in any_rules(ANY), more in any_matcher(), statement in any_statement()) {
        let (Some(before), mut rules) = (made(&rules, MASKS), rules) else { return Ok(()) };
        rules.push(("deny", more));
        let Some(after) = made(&rules, MASKS) else { return Ok(()) };
        prop_assert!(rank(&ask(&after, &statement)) >= rank(&ask(&before, &statement)));
    }

    #[test]
    fn a_mask_more_never_allows_more(rules in any_rules(ANY), statement in any_statement()) {
        let (Some(plain), Some(masked)) = (made(&rules, ""), made(&rules, MASKS)) else { return Ok(()) };
        prop_assert!(rank(&ask(&masked, &statement)) >= rank(&ask(&plain, &statement)));
    }

    #[test]
    fn nothing_is_allowed_without_an_allow_rule(rules in any_rules(&["approve", "deny"]), statement in any_statement()) {
        let Some(policy) = made(&rules, "") else { return Ok(()) };
        prop_assert!(rank(&ask(&policy, &statement)) > 0);
    }

    #[test]
    fn verdicts_name_rules_that_the_explanation_says_matched(rules in any_rules(ANY), statement in any_statement()) {
        let Some(policy) = made(&rules, MASKS) else { return Ok(()) };
        let subject = policy.subject_named("job").unwrap();
        let resource = policy.resource_named("orders").unwrap();
        let action = Action::Statement(statement);
        let question = Question { subject: &subject, resource, action: &action, now: UnixTime(0), grant: None };
        let verdict = policy.decide(&question);
        let explanation = policy.explain(&question);
        prop_assert!(!verdict.rules.is_empty());
        prop_assert_eq!(explanation.ungranted.is_empty() || rank(&verdict) == 2, true);
        for decided in verdict.rules.iter().filter(|id| !id.starts_with("builtin:")) {
            let note = explanation.rules.iter().find(|note| *note.id == **decided).unwrap();
            prop_assert!(note.matched, "{} {}", decided, explanation);
        }
    }

    #[test]
    fn a_statement_that_does_more_is_not_allowed_for_it(
        rules in any_rules(ANY), statement in any_statement(), extra in one_of(RELATIONS),
    ) {
        let Some(policy) = made(&rules, MASKS) else { return Ok(()) };
        // Doing more can bring a statement under a rule that asks people, but never makes it allowed.
        let allowed = |statement: &Statement| rank(&ask(&policy, statement)) == 0;
        if allowed(&statement) {
            return Ok(());
        }
        prop_assert!(!allowed(&statement.clone().on(Access::Read, extra)));
        prop_assert!(!allowed(&statement.clone().calls("pg_read_file")));
        prop_assert!(!allowed(&statement.clone().sets("role", None)));
        // One that only plans a change (EXPLAIN) is another thing than one that makes it: no comparison.
        let comparable = statement.class > Class::Read;
        prop_assert!(!comparable || !allowed(&statement.clone().with("delete")));
    }

    #[test]
    fn any_text_is_a_policy_or_an_error(text in "(version: 1\n)?[a-z:{}\\[\\]&*#'\"| \n-]{0,80}") {
        let _ = try_load(&text);
    }
}
