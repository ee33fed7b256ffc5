//! What returns a value for every operand, in about the same time: it cannot be made to tell a value by failing, or by
//! taking long, on some values and not on others.
//!
//! From PostgreSQL's documentation (chapter "Functions and Operators") and its sources under `utils/adt`. What is not here may
//! fail: arithmetic overflows, casts reject, patterns end in a backslash.

/// How far a built-in function is total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// In every argument.
    Yes,
    /// In the first one.
    First,
    /// In all but the first one.
    Rest,
    /// In the second, fourth … of its arguments: the others are keys.
    Values,
    No,
}

impl Total {
    /// Whether no value of the argument at this place makes it fail.
    pub(super) fn covers(self, at: usize) -> bool {
        match self {
            Self::Yes => true,
            Self::First => at == 0,
            Self::Rest => at > 0,
            Self::Values => at % 2 == 1,
            Self::No => false,
        }
    }
}

/// Of a built-in function.
pub(super) fn function(name: &str) -> Total {
    match name {
        "array_agg" | "array_length" | "array_lower" | "array_ndims" | "array_to_json"
        | "array_to_string" | "array_upper" | "avg" | "bit_and" | "bit_length" | "bit_or" | "bool_and"
        | "bool_or" | "btrim" | "cardinality" | "char_length" | "character_length" | "concat"
        | "concat_ws" | "count" | "cume_dist" | "dense_rank" | "every" | "first_value" | "hashtext"
        | "initcap" | "json_agg" | "json_build_array" | "json_typeof" | "jsonb_agg" | "jsonb_build_array"
        | "jsonb_pretty" | "jsonb_typeof" | "last_value" | "left" | "length" | "lower" | "ltrim" | "max"
        | "md5" | "min" | "num_nonnulls" | "num_nulls" | "octet_length" | "percent_rank"
        | "pg_column_size" | "pg_typeof" | "position" | "quote_ident" | "quote_literal"
        | "quote_nullable" | "rank" | "reverse" | "right" | "row_number" | "row_to_json" | "rtrim"
        | "sha224" | "sha256" | "sha384" | "sha512" | "starts_with" | "string_agg" | "strpos" | "sum"
        | "textcat" | "to_json" | "to_jsonb" | "translate" | "upper" => Total::Yes,
        // substring() with a pattern is another function: see `Analyser::totality`.
        "encode" | "lag" | "lead" | "nth_value" | "split_part" | "substr" | "substring" | "to_char" => {
            Total::First
        }
        "date_part" | "date_trunc" | "extract" => Total::Rest,
        "json_build_object" | "json_object_agg" | "jsonb_build_object" | "jsonb_object_agg" => Total::Values,
        _ => Total::No,
    }
}

/// Whether a built-in operator is total in both operands. `LIKE` is not: only a value that matches up to the end of its pattern
/// meets the backslash there.
pub(super) fn operator(name: &str) -> bool {
    matches!(
        name,
        "BETWEEN"
            | "NOT BETWEEN"
            | "BETWEEN SYMMETRIC"
            | "NOT BETWEEN SYMMETRIC"
            | "="
            | "<>"
            | "!="
            | "<"
            | ">"
            | "<="
            | ">="
            | "||"
            | "->"
            | "->>"
            | "#>"
            | "#>>"
            | "@>"
            | "<@"
            | "?"
            | "?|"
            | "?&"
            | "&&"
            | "@@"
    )
}

/// Whether every value has this type's form. Explicit casts cut strings off, silently.
pub(super) fn cast(target: &str) -> bool {
    matches!(target, "text" | "varchar" | "bpchar" | "name")
}
