//! Function calls, and what calling some built-in functions means for the statement.

use pg_query::{
    Node, NodeEnum,
    protobuf::{FuncCall, a_const::Val},
};
use policy::{Class, functions::is_safe};

use super::{
    analyser::{Analyser, Answer},
    catalogue::{Known, Nature},
    facts::Use,
    flow::Flow,
    scope::{Scope, texts},
    total::{self, Total},
};

impl<'a> Analyser<'a> {
    pub(super) fn call(&mut self, call: &'a FuncCall, scope: &Scope<'_, 'a>) -> Answer<Flow> {
        let parts = texts(&call.funcname);
        let name = parts.last().copied().unwrap_or_default();
        let total = totality(call, &parts);
        let mut flow = Flow::none();
        let mut risked = Flow::none();
        for (at, argument) in call.args.iter().enumerate() {
            let argument = self.expr(argument, scope)?;
            if !total.covers(at) {
                risked.add(&argument);
            }
            flow.add(&argument);
        }
        // What others do, the catalogue says.
        let others = self.catalogue.function(&parts).is_some() && !is_safe(&join_name(&parts));
        if total != Total::Yes && !others {
            self.may_fail(&risked);
        }
        let order = self.exprs(&call.agg_order, scope)?;
        if call.agg_within_group {
            // percentile_cont(0.5) WITHIN GROUP (ORDER BY x) returns an x.
            flow.add(&order);
        }
        self.facts.mark(&order, Use::Predicate);
        self.predicate(call.agg_filter.as_deref(), scope)?;
        if let Some(window) = &call.over {
            self.window(window, scope)?;
        }
        if name == "set_config" {
            self.function_name(&parts);
            self.set_config(&call.args);
            // What a setting holds can be read back by anyone, any time.
            self.facts.mark(&flow, Use::Stored);
            if flow.unknown {
                self.facts.opaque();
            }
            // It returns what it was given.
            return Ok(flow);
        }
        if keeps_its_arguments(name) {
            self.facts.mark(&flow, Use::Stored);
        }
        self.called(&parts, flow)
    }

    /// What a function returns when it is called with arguments of this flow.
    pub(super) fn called(&mut self, parts: &[&str], arguments: Flow) -> Answer<Flow> {
        let safe = self.function_name(parts);
        let known = self.catalogue.function(parts);
        let name = parts.last().copied().unwrap_or_default();
        // As many rows come back as the arguments say.
        let rows = match &known {
            Some(known) => known.set || (safe && returns_rows(name)),
            None => !safe || returns_rows(name),
        };
        if rows {
            self.facts.mark(&arguments, Use::Predicate);
        }
        match known {
            Some(known) => self.returned(&known, arguments, false),
            None => {
                let mut flow = arguments;
                flow.unknown |= !safe;
                Ok(flow)
            }
        }
    }

    /// What functions that the catalogue knows return. `total`: those whose code is not SQL never fail.
    pub(super) fn returned(&mut self, known: &Known<'_>, arguments: Flow, total: bool) -> Answer<Flow> {
        if known.keeps {
            // The server runs stable functions read-only; others may put what they are given anywhere.
            self.facts.mark(&arguments, Use::Stored);
        }
        let mut flow = Flow::none();
        for nature in &known.natures {
            match nature {
                Nature::Pure => {
                    if !total {
                        self.may_fail(&arguments);
                    }
                    flow.add(&arguments);
                }
                Nature::Unseen => {
                    self.may_fail(&arguments);
                    flow.add(&arguments);
                    flow.unknown = true;
                }
                Nature::Body(body) => {
                    // It may find no end of rows.
                    self.may_fail(&Flow::none());
                    if body.fails_by_arguments {
                        self.may_fail(&arguments);
                    }
                    let predicates = self.seen(&body.predicates)?;
                    self.facts.mark(&predicates, Use::Predicate);
                    if body.filters_by_arguments {
                        self.facts.mark(&arguments, Use::Predicate);
                    }
                    if body.arguments {
                        flow.add(&arguments);
                    }
                    flow.add(&self.seen(&body.columns)?);
                }
            }
        }
        Ok(flow)
    }

    /// Notes a call and its effects; whether the function is on the list of safe ones.
    pub(super) fn function_name(&mut self, parts: &[&str]) -> bool {
        let written = join_name(parts);
        let safe = is_safe(&written);
        let (class, opaque) = effect(parts.last().copied().unwrap_or_default());
        self.facts.raise(class);
        if opaque {
            self.facts.opaque();
        }
        self.facts.function(written);
        safe
    }

    fn set_config(&mut self, args: &'a [Node]) {
        let mut values = [None, None];
        for (at, arg) in args.iter().enumerate() {
            let (at, value) = match &arg.node {
                Some(NodeEnum::NamedArgExpr(named)) => {
                    let at = match named.name.as_str() {
                        "setting_name" => 0,
                        "new_value" => 1,
                        _ => 2,
                    };
                    (at, named.arg.as_deref().and_then(literal))
                }
                _ => (at, literal(arg)),
            };
            if let Some(slot) = values.get_mut(at) {
                *slot = value;
            }
        }
        let [name, value] = values;
        match name {
            Some(name) => self.facts.setting(name, value.map(str::to_owned)),
            // Some setting or other.
            None => self.facts.opaque(),
        }
    }
}

/// How far a call of this form cannot fail, if it is one of the server's own functions.
fn totality(call: &FuncCall, parts: &[&str]) -> Total {
    let ([name] | ["pg_catalog", name]) = parts else { return Total::No };
    let total = total::function(name);
    let rest = call.args.get(1..).unwrap_or_default();
    let integers = || rest.iter().all(is_integer);
    match total {
        Total::First if matches!(*name, "substr" | "substring") && !integers() => Total::No,
        Total::First | Total::Rest | Total::Values
            if call.func_variadic || call.args.iter().any(is_named) =>
        {
            Total::No
        }
        total => total,
    }
}

fn is_integer(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::AConst(constant)) if matches!(constant.val, Some(Val::Ival(_))))
}

fn is_named(node: &Node) -> bool {
    matches!(node.node, Some(NodeEnum::NamedArgExpr(_)))
}

/// The text of a string constant, with or without a cast.
pub(super) fn literal(node: &Node) -> Option<&str> {
    let mut node = node.node.as_ref()?;
    while let NodeEnum::TypeCast(cast) = node {
        node = cast.arg.as_ref()?.node.as_ref()?;
    }
    match node {
        NodeEnum::AConst(constant) => match &constant.val {
            Some(Val::Sval(string)) => Some(&string.sval),
            _ => None,
        },
        _ => None,
    }
}

/// A qualified name as text. Parts that hold a dot are quoted, so that they do not pass for two.
pub(super) fn join_name(parts: &[&str]) -> String {
    let mut name = String::with_capacity(parts.iter().map(|part| part.len().saturating_add(1)).sum());
    for part in parts {
        if !name.is_empty() {
            name.push('.');
        }
        if part.contains('.') || part.is_empty() {
            name.push('"');
            name.push_str(part);
            name.push('"');
        } else {
            name.push_str(part);
        }
    }
    name
}

/// Built-in functions that put what they are given where anyone may read it later.
fn keeps_its_arguments(name: &str) -> bool {
    matches!(name, "setval" | "pg_notify" | "pg_logical_emit_message" | "lowrite" | "setseed")
        || name.starts_with("lo_")
}

/// Built-in functions whose number of rows depends on what they are given.
pub(super) fn returns_rows(name: &str) -> bool {
    matches!(
        name,
        "aclexplode"
            | "generate_series"
            | "generate_subscripts"
            | "json_array_elements"
            | "json_array_elements_text"
            | "json_each"
            | "json_each_text"
            | "json_object_keys"
            | "json_populate_recordset"
            | "json_to_recordset"
            | "jsonb_array_elements"
            | "jsonb_array_elements_text"
            | "jsonb_each"
            | "jsonb_each_text"
            | "jsonb_object_keys"
            | "jsonb_path_query"
            | "jsonb_path_query_tz"
            | "jsonb_populate_recordset"
            | "jsonb_to_recordset"
            | "pg_mcv_list_items"
            | "pg_options_to_table"
            | "regexp_matches"
            | "regexp_split_to_table"
            | "string_to_table"
            | "ts_debug"
            | "ts_parse"
            | "ts_token_type"
            | "unnest"
    )
}

/// What calling a function of this name, in whatever schema, makes of the statement, and whether it runs or
/// reads something that the statement names only inside a string.
fn effect(name: &str) -> (Class, bool) {
    match name {
        "nextval" | "setval" | "pg_notify" | "pg_logical_emit_message" => (Class::Write, false),
        "set_config" | "setseed" => (Class::Session, false),
        "query_to_xml"
        | "query_to_xmlschema"
        | "query_to_xml_and_xmlschema"
        | "ts_stat"
        | "ts_rewrite"
        | "connectby"
        | "xpath_table" => (Class::Code, true),
        "table_to_xml"
        | "table_to_xmlschema"
        | "table_to_xml_and_xmlschema"
        | "schema_to_xml"
        | "schema_to_xmlschema"
        | "schema_to_xml_and_xmlschema"
        | "database_to_xml"
        | "database_to_xmlschema"
        | "database_to_xml_and_xmlschema"
        | "cursor_to_xml"
        | "cursor_to_xmlschema" => (Class::Read, true),
        "lo_import" | "lo_export" | "pg_stat_file" | "pg_execute_server_program" => (Class::Code, false),
        "lo_get" | "loread" | "lo_open" | "lo_close" | "lo_lseek" | "lo_lseek64" | "lo_tell"
        | "lo_tell64" => (Class::Read, true),
        "lowrite" => (Class::Write, true),
        "pg_terminate_backend"
        | "pg_cancel_backend"
        | "pg_reload_conf"
        | "pg_rotate_logfile"
        | "pg_promote"
        | "pg_switch_wal"
        | "pg_create_restore_point"
        | "pg_log_backend_memory_contexts"
        | "pg_import_system_collations"
        | "brin_summarize_new_values"
        | "brin_summarize_range"
        | "brin_desummarize_range"
        | "gin_clean_pending_list" => (Class::Utility, false),
        _ if name.starts_with("dblink") || name.starts_with("crosstab") => (Class::Code, true),
        _ if name.starts_with("pg_read_") || name.starts_with("pg_ls_") || name.starts_with("pg_file_") => {
            (Class::Code, false)
        }
        _ if name.starts_with("lo_") => (Class::Write, true),
        _ if name.starts_with("pg_logical_slot_") => (Class::Code, true),
        _ if name.starts_with("pg_stat_reset")
            || name.starts_with("pg_backup_")
            || name.starts_with("pg_replication_")
            || name.starts_with("pg_wal_replay_")
            || name.contains("_replication_slot") =>
        {
            (Class::Utility, false)
        }
        _ => (Class::Transaction, false),
    }
}
