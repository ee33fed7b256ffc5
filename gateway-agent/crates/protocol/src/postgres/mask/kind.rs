//! Types, as far as masking has to tell them apart.

use mask::{Format, Type};

/// What a cell of a type looks like in one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text that any other text may replace.
    Text,
    /// JSON text: what replaces it has to be JSON.
    Json,
    /// JSON text after a version byte.
    Jsonb,
    /// May hold text, but only the type's own syntax may replace it.
    Container,
    /// Numbers, times, bytes: nothing that a detector reads, but a transform may know the type.
    Typed(Type, Format),
    /// Nothing that a detector reads, and nothing that a transform knows.
    Opaque,
}

impl Kind {
    /// By the type's oid (`pg_type.dat`) and the cell's format.
    pub(crate) fn of(type_oid: u32, binary: bool) -> Self {
        let typed = |of| Self::Typed(of, if binary { Format::Binary } else { Format::Text });
        match type_oid {
            17 => typed(Type::Bytea),
            20 => typed(Type::Int8),
            21 => typed(Type::Int2),
            23 => typed(Type::Int4),
            700 => typed(Type::Float4),
            701 => typed(Type::Float8),
            1082 => typed(Type::Date),
            1114 | 1184 => typed(Type::Timestamp),
            1700 => typed(Type::Numeric),
            2950 => typed(Type::Uuid),
            // name, text, unknown, bpchar, varchar, xml, cstring
            19 | 25 | 705 | 1042 | 1043 | 142 | 2275 => Self::Text,
            114 => Self::Json,
            3802 if binary => Self::Jsonb,
            3802 => Self::Json,
            // "char" is one byte in binary
            18 if binary => Self::Opaque,
            18 => Self::Text,
            // bool, int2vector, regproc, oid, tid, xid, cid, oidvector
            16 | 22 | 24 | 26..=30
            // money, macaddr8, macaddr
            | 790 | 774 | 829
            // time, interval, timetz, bit, varbit
            | 1083 | 1186 | 1266 | 1560 | 1562
            // pg_lsn, xid8, void
            | 3220 | 5069 | 2278
            // regprocedure … regtype, regconfig, regdictionary, regnamespace, regrole, regcollation
            | 2202..=2206 | 3734 | 3769 | 4089 | 4096 | 4191 => Self::Opaque,
            // Types made by users: citext, enums, domains of an extension.
            16_384.. if !binary => Self::Text,
            _ => Self::Container,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        assert_eq!(Kind::of(25, true), Kind::Text);
        assert_eq!(Kind::of(3802, true), Kind::Jsonb);
        assert_eq!(Kind::of(3802, false), Kind::Json);
        assert_eq!(Kind::of(23, false), Kind::Typed(Type::Int4, Format::Text));
        assert_eq!(Kind::of(16, true), Kind::Opaque);
        assert_eq!(Kind::of(1009, false), Kind::Container);
        assert_eq!(Kind::of(20_000, false), Kind::Text);
        assert_eq!(Kind::of(20_000, true), Kind::Container);
    }
}
