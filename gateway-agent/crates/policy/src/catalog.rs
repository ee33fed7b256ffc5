//! The server's own schemas: what every reader may look at, and what nobody gets by a wildcard.

use crate::pattern::ColumnPattern;

/// Schemas that belong to the server.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    schema.starts_with("pg_") || schema == "information_schema"
}

/// Whether a rule that allows reads covers this catalogue relation without naming it. Definitions of objects
/// are; passwords, statistics that carry sampled values, other sessions' statements and the server's files
/// are not.
pub(crate) fn is_readable(schema: &str, name: &str) -> bool {
    match schema {
        "pg_catalog" => READABLE.contains(&name),
        "information_schema" => !name.starts_with('_') && !name.starts_with("user_mapping"),
        _ => false,
    }
}

/// Whether only a rule that writes the name out covers this relation of a system schema.
pub(crate) fn is_sensitive(name: &str) -> bool {
    SENSITIVE.contains(&name) || name.starts_with("_pg_") || name.starts_with("user_mapping")
}

/// Whether an unqualified name certainly means the catalogue's own relation: the server looks there first.
pub(crate) fn is_known(name: &str) -> bool {
    READABLE.contains(&name) || SENSITIVE.contains(&name)
}

/// Columns in which the server repeats values of others: samples for the planner, texts of statements, large objects.
/// They are masked as soon as any column is.
pub(crate) fn repeating() -> impl Iterator<Item = ColumnPattern> {
    REPEATING.iter().filter_map(|text| ColumnPattern::new(text).ok())
}

const REPEATING: &[&str] = &[
    "pg_catalog.pg_largeobject.data",
    "pg_catalog.pg_stat_activity.query",
    "pg_catalog.pg_statistic.stanumbers*",
    "pg_catalog.pg_statistic.stavalues*",
    "pg_catalog.pg_statistic_ext_data.stxd*",
    "pg_catalog.pg_stats.correlation",
    "pg_catalog.pg_stats.elem_count_histogram",
    "pg_catalog.pg_stats.histogram_bounds",
    "pg_catalog.pg_stats.most_common_*",
    "pg_catalog.pg_stats.range_*",
    "pg_catalog.pg_stats_ext.most_common_*",
    "pg_catalog.pg_stats_ext_exprs.histogram_bounds",
    "pg_catalog.pg_stats_ext_exprs.most_common_*",
    "*.pg_stat_statements.query",
];

const SENSITIVE: &[&str] = &[
    "pg_authid",
    "pg_config",
    "pg_db_role_setting",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_replication",
    "pg_stat_statements",
    "pg_stat_statements_info",
    "pg_stat_subscription",
    "pg_stat_wal_receiver",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_stats",
    "pg_stats_ext",
    "pg_stats_ext_exprs",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
];

const READABLE: &[&str] = &[
    "pg_aggregate",
    "pg_am",
    "pg_amop",
    "pg_amproc",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_cursors",
    "pg_database",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_table",
    "pg_group",
    "pg_index",
    "pg_indexes",
    "pg_inherits",
    "pg_init_privs",
    "pg_language",
    "pg_largeobject_metadata",
    "pg_locks",
    "pg_matviews",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_policies",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_publication_tables",
    "pg_range",
    "pg_rewrite",
    "pg_roles",
    "pg_rules",
    "pg_seclabel",
    "pg_seclabels",
    "pg_sequence",
    "pg_sequences",
    "pg_settings",
    "pg_shdepend",
    "pg_shdescription",
    "pg_stat_all_indexes",
    "pg_stat_all_tables",
    "pg_stat_database",
    "pg_stat_user_indexes",
    "pg_stat_user_tables",
    "pg_statio_all_tables",
    "pg_statio_user_tables",
    "pg_statistic_ext",
    "pg_tables",
    "pg_tablespace",
    "pg_timezone_abbrevs",
    "pg_timezone_names",
    "pg_transform",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_config_map",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
    "pg_user",
    "pg_views",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_values_can_all_be_named() {
        assert_eq!(repeating().count(), REPEATING.len());
    }

    #[test]
    fn nothing_is_both_readable_and_sensitive() {
        for name in SENSITIVE {
            assert!(!is_readable("pg_catalog", name), "{name}");
        }
        assert!(!is_readable("information_schema", "user_mapping_options"));
        assert!(!is_readable("information_schema", "_pg_user_mappings"));
        assert!(is_readable("information_schema", "columns"));
        assert!(!is_readable("public", "pg_class"));
    }
}
