//! Session settings: which a job may change without being asked.
//!
//! A setting that changes what a statement means to the server, or who runs it, would make the decision about
//! that statement false. Everything not known to be harmless counts as one of those.

/// Whether a job may make this change whatever the rules say. `value: None` = not written out in the
/// statement, which includes going back to what the session started with.
pub(crate) fn is_harmless(name: &str, value: Option<&str>, search_path: &[String]) -> bool {
    if HARMLESS.contains(&name) {
        return true;
    }
    let Some(value) = value else {
        // RESET ALL and DISCARD ALL restore what the gateway itself set at login.
        return name == "all";
    };
    let value = value.trim().trim_matches('\'');
    let word = value.to_ascii_lowercase();
    match name {
        "client_encoding" | "names" => matches!(word.as_str(), "utf8" | "utf-8" | "unicode"),
        "standard_conforming_strings" | "row_security" => {
            matches!(word.as_str(), "on" | "true" | "yes" | "1")
        }
        "backslash_quote" => word == "safe_encoding",
        "search_path" => {
            let names = value.split(',').map(|name| name.trim().trim_matches(['"', '\'']));
            // Names that mean the same with quotes and without.
            let plain = |name: &String| {
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            names.eq(search_path.iter().map(String::as_str)) && search_path.iter().all(plain)
        }
        _ => false,
    }
}

/// Settings that the reading of statements rests on: no rule can let go of them.
pub(crate) const FIXED: &[&str] =
    &["search_path", "client_encoding", "names", "standard_conforming_strings", "backslash_quote", "all"];

const HARMLESS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "escape_string_warning",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "plan_cache_mode",
    "statement_timeout",
    "timezone",
    "transaction",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_timeout",
    "xmloption",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_meaning_of_statements_is_pinned() {
        let path = ["public".to_owned()];
        let harmless = |name: &str, value: Option<&str>| is_harmless(name, value, &path);
        for (name, value) in [
            ("datestyle", Some("iso")),
            ("statement_timeout", None),
            ("client_encoding", Some("'UTF8'")),
            ("client_encoding", Some("utf-8")),
            ("standard_conforming_strings", Some("on")),
            ("row_security", Some("on")),
            ("search_path", Some("public")),
            ("search_path", Some("\"public\"")),
            ("all", None),
        ] {
            assert!(harmless(name, value), "{name} {value:?}");
        }
        for (name, value) in [
            ("client_encoding", Some("sjis")),
            ("client_encoding", None),
            ("standard_conforming_strings", Some("off")),
            ("search_path", Some("evil, public")),
            ("search_path", Some("")),
            ("search_path", Some("\"PUBLIC\"")),
            ("search_path", None),
            ("role", Some("postgres")),
            ("session_authorization", None),
            ("session_replication_role", Some("replica")),
            ("row_security", Some("off")),
            ("myapp.user", Some("1")),
            ("some_future_setting", Some("on")),
        ] {
            assert!(!harmless(name, value), "{name} {value:?}");
        }
        // Without its quotes the server would read it in lower case.
        assert!(!is_harmless("search_path", Some("Sales"), &["Sales".to_owned()]));
    }
}
