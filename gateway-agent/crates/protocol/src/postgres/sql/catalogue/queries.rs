//! What is read of a database, in SQL that servers from 13 on understand.

/// Queries whose rows [`Catalogue::build`] takes, in this order. Every column is text.
///
/// 1. relations: oid, schema, name, kind
/// 2. columns: relation oid, number, name, oid of the type, whether it is generated
/// 3. what views read: view oid, relation oid, column number (0 = the relation), whether whole rows are read
/// 4. inheritance and partitions: child oid, parent oid
/// 5. the schemas of the search path, first first
/// 6. nothing to keep: from here on names are told in full
/// 7. definitions: view oid, SELECT
/// 8. functions outside pg_catalog: schema, name, language, volatility, whether they return sets, whether settings of
///    their own hold inside, body, names of arguments by line
/// 9. operators outside pg_catalog, or of functions there: name, schema and name of the function
/// 10. casts by such functions: name of the type, schema and name of the function
/// 11. generated columns: relation oid, column number, number of a column that it is computed from
pub const CATALOGUE_SQL: &[&str] = &[
    "SELECT c.oid::text, n.nspname::text, c.relname::text, c.relkind::text \
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)'",
    "SELECT a.attrelid::text, a.attnum::text, a.attname::text, a.atttypid::text, (a.attgenerated <> '')::text \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)' \
     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
    // A whole-row reference leaves no trace in pg_depend but is a Var of attribute 0 in the stored rule, and
    // nothing depends on system relations (oid below 16384) there, but the rule names them.
    "SELECT r.ev_class::text, d.refobjid::text, d.refobjsubid::text, \
     (pg_catalog.strpos(r.ev_action::text, ':varattno 0 ') > 0)::text \
     FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d \
     ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid \
     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'n' \
     WHERE r.ev_type = '1' AND d.refobjid <> r.ev_class \
     UNION \
     SELECT r.ev_class::text, m[1], '0', 'true' FROM pg_catalog.pg_rewrite r, \
     pg_catalog.regexp_matches(r.ev_action::text, ':relid ([0-9]+)', 'g') m \
     WHERE r.ev_type = '1' AND r.ev_class >= 16384 AND m[1]::pg_catalog.int8 BETWEEN 1 AND 16383",
    "SELECT i.inhrelid::text, i.inhparent::text \
     FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid \
     WHERE c.relkind IN ('r', 'p', 'f')",
    "SELECT s.name::text FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) \
     WITH ORDINALITY AS s(name, n) ORDER BY s.n",
    "SELECT pg_catalog.set_config('search_path', '', false)::text",
    "SELECT c.oid::text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
     WHERE c.relkind IN ('v', 'm') AND (c.oid >= 16384 OR c.oid = 'pg_catalog.pg_stats'::pg_catalog.regclass)",
    "SELECT n.nspname::text, p.proname::text, l.lanname::text, p.provolatile::text, p.proretset::text, \
     (p.proconfig IS NOT NULL OR p.prokind <> 'f')::text, \
     CASE WHEN l.lanname = 'sql' THEN p.prosrc ELSE '' END, \
     coalesce(pg_catalog.array_to_string(p.proargnames, E'\\n', ''), '') \
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
     WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'",
    "SELECT o.oprname::text, n.nspname::text, p.proname::text FROM pg_catalog.pg_operator o \
     JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
     WHERE o.oid >= 16384",
    "SELECT t.typname::text, n.nspname::text, p.proname::text FROM pg_catalog.pg_cast c \
     JOIN pg_catalog.pg_type t ON t.oid = c.casttarget JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc \
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE c.oid >= 16384",
    "SELECT d.adrelid::text, d.adnum::text, p.refobjsubid::text FROM pg_catalog.pg_attrdef d \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated <> '' \
     JOIN pg_catalog.pg_depend p ON p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
     AND p.refobjid = d.adrelid AND p.refobjsubid > 0 AND p.refobjsubid <> d.adnum \
     AND ((p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid) \
     OR (p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objid = d.adrelid AND p.objsubid = d.adnum))",
];
