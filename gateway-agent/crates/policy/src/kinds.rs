//! The commands that rules can name, and how dangerous each is by itself.

use std::{collections::HashMap, sync::LazyLock};

use crate::action::Class;

/// The class of a command taken alone; `None` for a name that no command has.
///
/// What a statement carries inside, or does beyond the plain command, can raise its own class above this.
pub fn class_of(kind: &str) -> Option<Class> {
    CLASSES.get(kind).copied()
}

/// Every command name with its class.
pub fn all() -> impl Iterator<Item = (Class, &'static str)> + Clone {
    KINDS.iter().flat_map(|(class, kinds)| kinds.split_ascii_whitespace().map(|kind| (*class, kind)))
}

/// Commands that only add rows: naming one of them in a rule does not say that the rows may be read back.
pub(crate) const APPENDING: &[&str] = &["insert", "copy_from_stdin", "copy_from_file", "copy_from_program"];

/// Commands that touch only the columns they list.
pub(crate) const BY_COLUMN: &[&str] = &["insert", "update", "copy_from_stdin"];

/// Commands that run nothing but the command inside of them, if at all.
pub(crate) const CARRYING: &[&str] = &["declare", "explain", "explain_analyze", "prepare"];

static CLASSES: LazyLock<HashMap<&'static str, Class>> =
    LazyLock::new(|| all().map(|(class, kind)| (kind, class)).collect());

const KINDS: &[(Class, &str)] = &[
    (
        Class::Transaction,
        "begin commit commit_prepared prepare_transaction release_savepoint rollback rollback_prepared \
         rollback_to_savepoint savepoint set_constraints set_transaction start_transaction",
    ),
    (
        Class::Session,
        "close deallocate deallocate_all declare discard_all discard_plans discard_sequences discard_temp \
         execute fetch listen move prepare reset reset_all set set_session_characteristics show unlisten",
    ),
    (Class::Read, "copy_to_stdout explain explain_analyze return select values"),
    (Class::Write, "copy_from_stdin delete insert merge notify refresh_materialized_view truncate update"),
    (
        Class::Utility,
        "analyze checkpoint cluster lock reindex_database reindex_index reindex_schema reindex_system \
         reindex_table vacuum",
    ),
    (
        Class::Ddl,
        "alter_access_method alter_aggregate alter_cast alter_collation alter_conversion alter_database \
         alter_domain alter_event_trigger alter_foreign_table alter_index alter_language \
         alter_large_object alter_materialized_view alter_object alter_operator alter_operator_class \
         alter_operator_family alter_publication alter_rule alter_schema alter_sequence alter_statistics \
         alter_table alter_table_all alter_tablespace alter_text_search_configuration \
         alter_text_search_dictionary alter_text_search_parser alter_text_search_template alter_transform \
         alter_trigger alter_type alter_view comment create_cast create_collation create_conversion \
         create_database create_domain create_foreign_table create_index create_large_object \
         create_materialized_view create_object create_operator create_operator_class \
         create_operator_family create_publication create_routine create_rule create_schema \
         create_sequence create_statistics create_table create_table_as create_text_search_configuration \
         create_text_search_dictionary create_text_search_parser create_text_search_template \
         create_transform create_trigger create_type create_view drop_access_method drop_aggregate \
         drop_cast drop_collation drop_conversion drop_database drop_domain drop_event_trigger \
         drop_extension drop_foreign_data_wrapper drop_foreign_table drop_function drop_index \
         drop_language drop_large_object drop_materialized_view drop_object drop_operator \
         drop_operator_class drop_operator_family drop_procedure drop_publication drop_routine drop_rule \
         drop_schema drop_sequence drop_server drop_statistics drop_table drop_tablespace \
         drop_text_search_configuration drop_text_search_dictionary drop_text_search_parser \
         drop_text_search_template drop_transform drop_trigger drop_type drop_view import_foreign_schema \
         select_into",
    ),
    (
        Class::Privilege,
        "alter_default_privileges alter_policy alter_role alter_server alter_subscription alter_system \
         alter_user_mapping create_group create_policy create_role create_server create_subscription \
         create_tablespace create_user create_user_mapping drop_owned drop_policy drop_role \
         drop_subscription drop_user_mapping grant grant_role reassign_owned revoke revoke_role \
         security_label",
    ),
    (
        Class::Code,
        "alter_extension alter_foreign_data_wrapper alter_function alter_procedure alter_routine call \
         copy_from_file copy_from_program copy_to_file copy_to_program create_access_method \
         create_aggregate create_event_trigger create_extension create_foreign_data_wrapper \
         create_function create_language create_procedure do load unknown",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_once() {
        assert_eq!(all().count(), CLASSES.len());
        for kind in APPENDING.iter().chain(BY_COLUMN).chain(CARRYING) {
            assert!(class_of(kind).is_some(), "{kind}");
        }
        assert_eq!(class_of("delete"), Some(Class::Write));
        assert_eq!(class_of("delte"), None);
    }
}
