//! Whom a rule is for, what it does, and how rules meet.

use policy::*;

use super::{READ, delete, policy, rule};
use crate::support::*;

#[test]
fn nothing_is_allowed_by_default() {
    let empty = load("");
    let (rule, reason) = denied(ask(&empty, &select(&["public.orders.id"])));
    assert_eq!(rule, builtin::DEFAULT_DENY);
    assert!(reason.contains("select") && reason.contains("reading public.orders"), "{reason}");
    assert_eq!(denied(ask(&empty, &statement("begin", Class::Transaction))).0, builtin::DEFAULT_DENY);
}

#[test]
fn an_allow_rule_counts_for_its_subjects_and_resources_only() {
    let policy = policy(&[READ]);
    let select = select(&["public.orders.id"]);
    allowed(ask(&policy, &select));
    denied(ask_as(&policy, "other", "orders", &select, None));
    denied(ask_as(&policy, "job", "reports", &select, None));
}

#[test]
fn a_group_stands_for_its_members() {
    let policy = load(
        "rules:\n  - { id: read, effect: allow, subjects: [agents], resources: [orders], statements: {classes: [read], relations: [public.*]} }\n",
    );
    for subject in ["job", "other"] {
        allowed(ask_as(&policy, subject, "orders", &select(&["public.orders.id"]), None));
    }
}

#[test]
fn subjects_and_resources_of_another_policy_get_what_this_one_gives_their_name() {
    let policy = policy(&[READ]);
    let action = Action::Statement(select(&["public.orders.id"]));
    let resource = policy.resource_named("orders").unwrap();
    let gone = Subject { name: "gone".into() };
    let verdict =
        policy.decide(&Question { subject: &gone, resource, action: &action, now: UnixTime(0), grant: None });
    assert_eq!(denied(verdict).0, builtin::DEFAULT_DENY);
}

#[test]
fn limits_name_the_rule_that_set_them() {
    let policy = policy(&[
        (
            "a",
            "allow",
            "statements: {classes: [read], relations: [public.orders]}, limits: {rows: 10, time: 1m, max_cost: 5}",
        ),
        (
            "b",
            "allow",
            "statements: {classes: [read], relations: [public.items]}, limits: {bytes: 5, time: 2s, statements_per_minute: 9}",
        ),
    ]);
    let gates = allowed(ask(&policy, &select(&["public.orders.id", "public.items.id"]))).gates.unwrap();
    assert_eq!((gates.rows.as_deref(), gates.bytes.as_deref()), (Some("a"), Some("b")));
    assert_eq!(gates.time.as_ref().map(|t| (&*t.rule, t.most.as_secs())), Some(("b", 2)));
    let before: Vec<_> = gates.before.iter().map(|gate| (&*gate.rule, gate.bound.name())).collect();
    assert_eq!(before, [("a", "max_cost"), ("b", "statements_per_minute")]);
    assert!(allowed(ask(&policy, &select(&["public.items.id"]))).gates.unwrap().rows.is_none());
}

#[test]
fn deny_beats_approve_beats_allow() {
    let all = "statements: {classes: [write], relations: [public.*]}";
    let verdict = ask(
        &policy(&[("a", "allow", all), ("p", "approve", all), ("d", "deny", all)]),
        &delete("public.orders"),
    );
    assert_eq!(denied(verdict).0, "d");
    let (rules, terms) =
        waits(ask(&policy(&[("a", "allow", all), ("p", "approve", all)]), &delete("public.orders")));
    assert_eq!(rules[0], "p");
    assert_eq!(
        terms,
        ApprovalTerms { quorum: 1, approvers: vec![], expires_after: std::time::Duration::from_secs(600) }
    );
}

#[test]
fn a_deny_rule_needs_only_to_be_touched() {
    let deny = |rest: &str| {
        policy(&[
            READ,
            (
                "w",
                "allow",
                "statements: {classes: [write, session, code], relations: [public.*], functions: [public.f]}",
            ),
            ("no", "deny", rest),
        ])
    };
    let touched = |rest: &str, statement: &Statement| denied(ask(&deny(rest), statement)).0 == "no";
    let both = select(&["public.orders.id", "public.secrets.v"]);
    assert!(touched("statements: {relations: [public.secrets]}", &both));
    assert!(touched("statements: {columns: [public.secrets.v]}", &both));
    assert!(
        touched("statements: {columns: [public.secrets.w]}", &select(&["public.secrets.*"])),
        "* is every column"
    );
    assert!(
        touched("statements: {columns: [public.secrets.v]}", &select(&["v"])),
        "a column of who knows what"
    );
    assert!(
        touched("statements: {relations: [public.secrets]}", &select(&["secrets.v"])),
        "a schema not told"
    );
    assert!(touched("statements: {relations: [\"*.pg_class\"]}", &select(&["pg_catalog.pg_class.oid"])));
    assert!(touched("statements: {functions: [public.f]}", &both.clone().calls("f")));
    assert!(touched("statements: {classes: [read]}", &both));
    assert!(
        touched(
            "statements: {classes: [read], relations: [public.secrets]}",
            &delete("public.secrets").reads("public.secrets.v")
        ),
        "RETURNING reads"
    );
    assert!(touched(
        "statements: {classes: [read]}",
        &statement("insert", Class::Write).on(Access::Write, "public.log").stores("public.orders.id")
    ));
    assert!(touched(
        "statements: {classes: [code], relations: [public.secrets]}",
        &statement("copy_to_program", Class::Code).uses("public.secrets.v", |_| ())
    ));
    // Filling the log from orders is no write to orders.
    allowed(ask(
        &deny("statements: {classes: [write], relations: [public.orders]}"),
        &statement("insert", Class::Write).on(Access::Write, "public.log").stores("public.orders.id"),
    ));
    allowed(ask(&deny("statements: {relations: [public.secrets]}"), &select(&["public.orders.id"])));
}

#[test]
fn a_deny_rule_without_subjects_is_for_everyone() {
    let policy = load(&format!(
        "rules:\n{}  - {{ id: never, effect: deny, statements: {{classes: [read]}}, reason: not today }}\n",
        rule("read", "allow", "statements: {classes: [read], relations: [public.*]}")
    ));
    assert_eq!(denied(ask(&policy, &select(&["public.orders.id"]))), ("never".into(), "not today".into()));
}

#[test]
fn pinned_settings_stay() {
    let session = policy(&[("s", "allow", "statements: {classes: [session], settings: [\"myapp.*\"]}")]);
    let set =
        |name: &str, value: Option<&str>| ask(&session, &statement("set", Class::Session).sets(name, value));
    allowed(set("datestyle", Some("iso")));
    allowed(set("client_encoding", Some("UTF8")));
    allowed(set("search_path", Some("public")));
    allowed(set("myapp.user", Some("7")));
    for (name, value) in [
        ("search_path", Some("evil")),
        ("role", Some("postgres")),
        ("client_encoding", Some("sjis")),
        ("row_security", Some("off")),
    ] {
        let (rule, reason) = denied(set(name, value));
        assert_eq!(rule, builtin::PINNED_SETTING, "{name}");
        assert!(reason.contains(name));
    }
    let role = policy(&[("s", "allow", "statements: {classes: [session], settings: [role]}")]);
    allowed(ask(&role, &statement("set", Class::Session).sets("role", Some("reader"))));
}

#[test]
fn connecting_needs_a_rule_and_a_database_of_the_resource() {
    let connect = |policy: &Policy, database: &str| {
        let action = Action::Connect(Connect {
            database: database.into(),
            user: "me".into(),
            application: String::new(),
        });
        decide(policy, "job", "orders", &action, None, UnixTime(0))
    };
    let allow = ("c", "allow", "connect: true, record: none");
    assert_eq!(allowed(connect(&policy(&[allow]), "orders")).record, Recording::None);
    denied(connect(&policy(&[allow]), "payroll"));
    denied(connect(&policy(&[READ]), "orders"));
    waits(connect(&policy(&[allow, ("p", "approve", "connect: true")]), "orders"));
    assert_eq!(denied(connect(&policy(&[allow, ("d", "deny", "connect: true")]), "orders")).0, "d");
    denied(ask(&policy(&[allow]), &select(&["public.orders.id"])));
}

#[test]
fn a_rule_counts_until_it_expires() {
    let policy = policy(&[(
        "read",
        "allow",
        "statements: {classes: [read], relations: [public.*]}, expires: \"1970-01-01T00:01:00Z\"",
    )]);
    let at = |now| {
        decide(
            &policy,
            "job",
            "orders",
            &Action::Statement(select(&["public.orders.id"])),
            None,
            UnixTime(now),
        )
    };
    let verdict = at(59);
    assert_eq!(verdict.valid_until, Some(UnixTime(60)));
    allowed(verdict);
    let verdict = at(60);
    assert_eq!(verdict.valid_until, None);
    denied(verdict);
}

#[test]
fn a_grant_turns_exactly_its_rules_into_an_allow() {
    let del =
        ("del", "approve", "statements: {kinds: [delete], relations: [public.orders]}, limits: {rows: 3}");
    let any = ("any", "approve", "statements: {classes: [write], relations: [public.orders]}");
    let policy = policy(&[del, any]);
    let ask = |grant: &Grant, statement: &Statement| ask_as(&policy, "job", "orders", statement, Some(grant));
    let grant = |rules: &[&str], version: &str| {
        Grant::approved(rules.iter().map(|rule| (*rule).into()).collect(), version.into())
    };
    let version = policy.version().clone();
    assert_eq!(
        allowed(ask(&grant(&["del", "any"], &version), &delete("public.orders"))).limits.rows,
        Some(3)
    );
    waits(ask(&grant(&["del"], &version), &delete("public.orders")));
    waits(ask(&grant(&["del", "any"], "another version"), &delete("public.orders")));
    denied(ask(&grant(&["del", "any"], &version), &delete("public.items")));
    let forbidden = crate::support::load(&format!(
        "rules:\n{}{}",
        rule(del.0, del.1, del.2),
        rule("no", "deny", "statements: {kinds: [delete]}")
    ));
    let verdict = ask_as(
        &forbidden,
        "job",
        "orders",
        &delete("public.orders"),
        Some(&grant(&["del", "no"], forbidden.version())),
    );
    assert_eq!(denied(verdict).0, "no", "nobody can agree to what is denied");
}

#[test]
fn approval_terms_are_merged_to_the_strictest() {
    let on = "statements: {kinds: [delete], relations: [public.orders]}";
    let policy = policy(&[
        (
            "a",
            "approve",
            &format!("{on}, approval: {{quorum: 1, approvers: [\"@dba\", \"@lead\"], expires_after: 5m}}"),
        ),
        (
            "b",
            "approve",
            &format!("{on}, approval: {{quorum: 2, approvers: [\"@dba\"], expires_after: 10m}}"),
        ),
        ("c", "approve", on),
    ]);
    let (rules, terms) = waits(ask(&policy, &delete("public.orders")));
    assert_eq!(rules, ["a", "b", "c"]);
    assert_eq!(
        terms,
        ApprovalTerms {
            quorum: 2,
            approvers: vec!["@dba".into()],
            expires_after: std::time::Duration::from_secs(300)
        }
    );
}

#[test]
fn an_approve_rule_grants_only_what_it_is_about() {
    let policy = policy(&[("p", "approve", "statements: {kinds: [delete], relations: [public.orders]}")]);
    denied(ask(&policy, &delete("public.items")));
    denied(ask(&policy, &delete("public.orders").filters("public.items.id")));
}

#[test]
fn explanations_name_every_rule() {
    let policy = policy(&[
        READ,
        ("old", "allow", "statements: {classes: [read]}, expires: \"1970-01-01T00:00:01Z\""),
        ("link", "allow", "connect: true"),
        ("no", "deny", "statements: {relations: [secret.*]}"),
    ]);
    let subject = policy.subject_named("job").unwrap();
    let resource = policy.resource_named("orders").unwrap();
    let action = Action::Statement(select(&["public.orders.id", "app.x.y"]));
    let question = Question { subject: &subject, resource, action: &action, now: UnixTime(10), grant: None };
    let explanation = policy.explain(&question);
    assert_eq!(explanation.effect, "deny");
    assert_eq!(explanation.ungranted, ["reading app.x", "reading app.x.y"]);
    let matched: Vec<_> = explanation.rules.iter().map(|rule| (rule.id.as_str(), rule.matched)).collect();
    assert_eq!(matched, [("read", true), ("old", false), ("link", false), ("no", false)]);
    let text = explanation.to_string();
    assert!(
        text.contains("builtin:default-deny") && text.contains("grants select, reading public.orders"),
        "{text}"
    );
    assert!(serde_json::to_string(&explanation).unwrap().contains("\"ungranted\""));
}

#[test]
fn everything_covers_what_cannot_be_read() {
    let policy = load(
        "rules:\n  - {id: all, effect: allow, subjects: [job], resources: [orders], statements: {everything: true}}\n",
    );
    let (job, other) = (policy.subject_named("job").unwrap(), policy.subject_named("other").unwrap());
    let [orders, reports] = ["orders", "reports"].map(|name| policy.resource_named(name).unwrap());
    assert!(policy.lets_everything(&job, orders));
    assert!(!policy.lets_everything(&job, reports) && !policy.lets_everything(&other, orders));
    let allowed = ask(&policy, &Statement::unread());
    assert!(matches!(allowed.effect, Effect::Allow(_)), "{allowed:?}");
    for (subject, resource) in [("job", "reports"), ("other", "orders")] {
        let denied = ask_as(&policy, subject, resource, &Statement::unread(), None);
        assert!(matches!(denied.effect, Effect::Deny(_)), "{subject} {resource}: {denied:?}");
    }
}

#[test]
fn a_client_gets_the_role_it_asks_for_only_where_that_is_listed() {
    let text = POLICY_HEAD.replacen("user: gateway,", "user: gateway, roles: [\"app_*\"],", 1);
    let policy = try_load(&text).unwrap_or_else(|found| panic!("{}", show(&found)));
    let login = |name| &policy.resource_named(name).unwrap().postgres().unwrap().login;
    assert_eq!(login("orders").role("app_reader"), "app_reader");
    assert_eq!(login("orders").role("postgres"), "gateway");
    assert_eq!(login("reports").role("app_reader"), "gateway");
}

#[test]
fn replication_takes_a_rule_of_its_own() {
    let rule = |more: &str| {
        let head =
            "rules:\n  - {id: all, effect: allow, subjects: [job], resources: [orders], connect: true,";
        load(&format!("{head} {more} statements: {{everything: true}}}}\n"))
    };
    for (more, lets) in [("", false), ("replication: true,", true)] {
        let policy = rule(more);
        let (job, other) = (policy.subject_named("job").unwrap(), policy.subject_named("other").unwrap());
        let orders = policy.resource_named("orders").unwrap();
        assert_eq!(
            (policy.lets_replicate(&job, orders), policy.lets_replicate(&other, orders)),
            (lets, false)
        );
    }
}
