//! Every step of an evaluation, and attempts to get around it.

mod support;

use mask::{Partial, Transform};
use policy::*;
use support::*;

fn rule(id: &str, effect: &str, rest: &str) -> String {
    format!("  - {{ id: {id}, effect: {effect}, subjects: [job], resources: [orders], {rest} }}\n")
}

fn policy(rules: &[(&str, &str, &str)]) -> Policy {
    let rules: String = rules.iter().map(|(id, effect, rest)| rule(id, effect, rest)).collect();
    load(&format!("rules:\n{rules}"))
}

const READ: (&str, &str, &str) = ("read", "allow", "statements: {classes: [read], relations: [public.*]}");

fn delete(relation: &str) -> Statement {
    statement("delete", Class::Write).on(Access::Write, relation)
}

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
    let forbidden = support::load(&format!(
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
