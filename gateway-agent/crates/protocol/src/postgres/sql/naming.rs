//! The names that the server gives to result columns without an alias.

use pg_query::{
    Node, NodeEnum,
    protobuf::{AExprKind, FuncCall, JsonExprOp, MinMaxOp, SqlValueFunctionOp, SubLinkType, XmlExprOp},
};

use super::scope::text;

/// The name of the column that `node` makes in a target list.
pub(super) fn column_name(node: &Node) -> &str {
    figure(node).map_or("?column?", |(name, _)| name)
}

/// The name, and whether it is better than that of a cast around it. Follows FigureColnameInternal of the
/// server's parse_target.c.
fn figure(node: &Node) -> Option<(&str, bool)> {
    let good = |name| Some((name, true));
    let weak = |name| Some((name, false));
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(column) => good(column.fields.iter().rev().find_map(text)?),
        NodeEnum::AIndirection(indirection) => match indirection.indirection.iter().rev().find_map(text) {
            Some(name) => good(name),
            None => figure(indirection.arg.as_deref()?),
        },
        NodeEnum::FuncCall(call) => good(function_name(call)?),
        NodeEnum::AExpr(expr) if expr.kind() == AExprKind::AexprNullif => good("nullif"),
        NodeEnum::TypeCast(cast) => {
            let inner = cast.arg.as_deref().and_then(figure);
            match (inner, &cast.type_name) {
                (Some((name, true)), _) => good(name),
                (_, Some(of)) => weak(of.names.last().and_then(text)?),
                (inner, None) => inner,
            }
        }
        NodeEnum::CollateClause(collate) => figure(collate.arg.as_deref()?),
        NodeEnum::GroupingFunc(_) => good("grouping"),
        NodeEnum::MergeSupportFunc(_) => good("merge_action"),
        NodeEnum::SubLink(link) => match link.sub_link_type() {
            SubLinkType::ExistsSublink => good("exists"),
            SubLinkType::ArraySublink => good("array"),
            SubLinkType::ExprSublink => match link.subselect.as_ref()?.node.as_ref()? {
                NodeEnum::SelectStmt(select) => {
                    // The first target of the leftmost SELECT.
                    let mut select = select;
                    while let Some(left) = &select.larg {
                        select = left;
                    }
                    match &select.target_list.first()?.node {
                        Some(NodeEnum::ResTarget(target)) if !target.name.is_empty() => good(&target.name),
                        Some(NodeEnum::ResTarget(target)) => good(column_name(target.val.as_deref()?)),
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        },
        NodeEnum::CaseExpr(case) => match case.defresult.as_deref().and_then(figure) {
            Some((name, true)) => good(name),
            _ => weak("case"),
        },
        NodeEnum::AArrayExpr(_) => good("array"),
        NodeEnum::RowExpr(_) => good("row"),
        NodeEnum::CoalesceExpr(_) => good("coalesce"),
        NodeEnum::MinMaxExpr(expr) => match expr.op() {
            MinMaxOp::IsGreatest => good("greatest"),
            MinMaxOp::IsLeast => good("least"),
            MinMaxOp::Undefined => None,
        },
        NodeEnum::SqlvalueFunction(function) => good(value_function(function.op())?),
        NodeEnum::XmlExpr(expr) => match expr.op() {
            XmlExprOp::IsXmlconcat => good("xmlconcat"),
            XmlExprOp::IsXmlelement => good("xmlelement"),
            XmlExprOp::IsXmlforest => good("xmlforest"),
            XmlExprOp::IsXmlparse => good("xmlparse"),
            XmlExprOp::IsXmlpi => good("xmlpi"),
            XmlExprOp::IsXmlroot => good("xmlroot"),
            XmlExprOp::IsXmlserialize => good("xmlserialize"),
            XmlExprOp::IsDocument | XmlExprOp::Undefined => None,
        },
        NodeEnum::XmlSerialize(_) => good("xmlserialize"),
        NodeEnum::JsonParseExpr(_) => good("json"),
        NodeEnum::JsonScalarExpr(_) => good("json_scalar"),
        NodeEnum::JsonSerializeExpr(_) => good("json_serialize"),
        NodeEnum::JsonObjectConstructor(_) => good("json_object"),
        NodeEnum::JsonArrayConstructor(_) | NodeEnum::JsonArrayQueryConstructor(_) => good("json_array"),
        NodeEnum::JsonObjectAgg(_) => good("json_objectagg"),
        NodeEnum::JsonArrayAgg(_) => good("json_arrayagg"),
        NodeEnum::JsonFuncExpr(expr) => match expr.op() {
            JsonExprOp::JsonExistsOp => good("json_exists"),
            JsonExprOp::JsonQueryOp => good("json_query"),
            JsonExprOp::JsonValueOp => good("json_value"),
            JsonExprOp::JsonTableOp | JsonExprOp::Undefined => None,
        },
        _ => None,
    }
}

fn function_name(call: &FuncCall) -> Option<&str> {
    call.funcname.last().and_then(text)
}

const fn value_function(op: SqlValueFunctionOp) -> Option<&'static str> {
    Some(match op {
        SqlValueFunctionOp::SvfopCurrentDate => "current_date",
        SqlValueFunctionOp::SvfopCurrentTime | SqlValueFunctionOp::SvfopCurrentTimeN => "current_time",
        SqlValueFunctionOp::SvfopCurrentTimestamp | SqlValueFunctionOp::SvfopCurrentTimestampN => {
            "current_timestamp"
        }
        SqlValueFunctionOp::SvfopLocaltime | SqlValueFunctionOp::SvfopLocaltimeN => "localtime",
        SqlValueFunctionOp::SvfopLocaltimestamp | SqlValueFunctionOp::SvfopLocaltimestampN => {
            "localtimestamp"
        }
        SqlValueFunctionOp::SvfopCurrentRole => "current_role",
        SqlValueFunctionOp::SvfopCurrentUser => "current_user",
        SqlValueFunctionOp::SvfopUser => "user",
        SqlValueFunctionOp::SvfopSessionUser => "session_user",
        SqlValueFunctionOp::SvfopCurrentCatalog => "current_catalog",
        SqlValueFunctionOp::SvfopCurrentSchema => "current_schema",
        SqlValueFunctionOp::SqlvalueFunctionOpUndefined => return None,
    })
}
