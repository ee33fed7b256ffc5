//! Node kinds of the grammar, in groups, so that every match can name all of them without a wildcard: a node
//! kind that a later grammar adds does not compile until somebody has decided what it is.

/// Made by parse analysis, the planner or other parts of a server, never by the grammar.
macro_rules! never_parsed {
    () => {
        NodeEnum::Aggref(_)
            | NodeEnum::AlternativeSubPlan(_)
            | NodeEnum::ArrayCoerceExpr(_)
            | NodeEnum::ArrayExpr(_)
            | NodeEnum::CallContext(_)
            | NodeEnum::CaseTestExpr(_)
            | NodeEnum::CoerceToDomain(_)
            | NodeEnum::CoerceToDomainValue(_)
            | NodeEnum::CoerceViaIo(_)
            | NodeEnum::CollateExpr(_)
            | NodeEnum::ConvertRowtypeExpr(_)
            | NodeEnum::DistinctExpr(_)
            | NodeEnum::FieldSelect(_)
            | NodeEnum::FieldStore(_)
            | NodeEnum::FromExpr(_)
            | NodeEnum::FuncExpr(_)
            | NodeEnum::InferenceElem(_)
            | NodeEnum::InlineCodeBlock(_)
            | NodeEnum::JsonConstructorExpr(_)
            | NodeEnum::JsonExpr(_)
            | NodeEnum::JsonReturning(_)
            | NodeEnum::JsonTablePath(_)
            | NodeEnum::JsonTablePathScan(_)
            | NodeEnum::JsonTableSiblingJoin(_)
            | NodeEnum::MergeAction(_)
            | NodeEnum::NextValueExpr(_)
            | NodeEnum::NullIfExpr(_)
            | NodeEnum::OidList(_)
            | NodeEnum::OnConflictExpr(_)
            | NodeEnum::OpExpr(_)
            | NodeEnum::Param(_)
            | NodeEnum::Query(_)
            | NodeEnum::RangeTblEntry(_)
            | NodeEnum::RangeTblFunction(_)
            | NodeEnum::RangeTblRef(_)
            | NodeEnum::RelabelType(_)
            | NodeEnum::ReturningExpr(_)
            | NodeEnum::RowCompareExpr(_)
            | NodeEnum::RowMarkClause(_)
            | NodeEnum::RtepermissionInfo(_)
            | NodeEnum::ScalarArrayOpExpr(_)
            | NodeEnum::SetOperationStmt(_)
            | NodeEnum::SortGroupClause(_)
            | NodeEnum::SubPlan(_)
            | NodeEnum::SubscriptingRef(_)
            | NodeEnum::TableFunc(_)
            | NodeEnum::TableSampleClause(_)
            | NodeEnum::TargetEntry(_)
            | NodeEnum::Var(_)
            | NodeEnum::WindowClause(_)
            | NodeEnum::WindowFunc(_)
            | NodeEnum::WindowFuncRunCondition(_)
            | NodeEnum::WithCheckOption(_)
    };
}

/// Statements.
macro_rules! statement_nodes {
    () => {
        NodeEnum::AlterCollationStmt(_)
            | NodeEnum::AlterDatabaseRefreshCollStmt(_)
            | NodeEnum::AlterDatabaseSetStmt(_)
            | NodeEnum::AlterDatabaseStmt(_)
            | NodeEnum::AlterDefaultPrivilegesStmt(_)
            | NodeEnum::AlterDomainStmt(_)
            | NodeEnum::AlterEnumStmt(_)
            | NodeEnum::AlterEventTrigStmt(_)
            | NodeEnum::AlterExtensionContentsStmt(_)
            | NodeEnum::AlterExtensionStmt(_)
            | NodeEnum::AlterFdwStmt(_)
            | NodeEnum::AlterForeignServerStmt(_)
            | NodeEnum::AlterFunctionStmt(_)
            | NodeEnum::AlterObjectDependsStmt(_)
            | NodeEnum::AlterObjectSchemaStmt(_)
            | NodeEnum::AlterOpFamilyStmt(_)
            | NodeEnum::AlterOperatorStmt(_)
            | NodeEnum::AlterOwnerStmt(_)
            | NodeEnum::AlterPolicyStmt(_)
            | NodeEnum::AlterPublicationStmt(_)
            | NodeEnum::AlterRoleSetStmt(_)
            | NodeEnum::AlterRoleStmt(_)
            | NodeEnum::AlterSeqStmt(_)
            | NodeEnum::AlterStatsStmt(_)
            | NodeEnum::AlterSubscriptionStmt(_)
            | NodeEnum::AlterSystemStmt(_)
            | NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::AlterTableSpaceOptionsStmt(_)
            | NodeEnum::AlterTableStmt(_)
            | NodeEnum::AlterTsconfigurationStmt(_)
            | NodeEnum::AlterTsdictionaryStmt(_)
            | NodeEnum::AlterTypeStmt(_)
            | NodeEnum::AlterUserMappingStmt(_)
            | NodeEnum::CallStmt(_)
            | NodeEnum::CheckPointStmt(_)
            | NodeEnum::ClosePortalStmt(_)
            | NodeEnum::ClusterStmt(_)
            | NodeEnum::CommentStmt(_)
            | NodeEnum::CompositeTypeStmt(_)
            | NodeEnum::ConstraintsSetStmt(_)
            | NodeEnum::CopyStmt(_)
            | NodeEnum::CreateAmStmt(_)
            | NodeEnum::CreateCastStmt(_)
            | NodeEnum::CreateConversionStmt(_)
            | NodeEnum::CreateDomainStmt(_)
            | NodeEnum::CreateEnumStmt(_)
            | NodeEnum::CreateEventTrigStmt(_)
            | NodeEnum::CreateExtensionStmt(_)
            | NodeEnum::CreateFdwStmt(_)
            | NodeEnum::CreateForeignServerStmt(_)
            | NodeEnum::CreateForeignTableStmt(_)
            | NodeEnum::CreateFunctionStmt(_)
            | NodeEnum::CreateOpClassStmt(_)
            | NodeEnum::CreateOpFamilyStmt(_)
            | NodeEnum::CreatePlangStmt(_)
            | NodeEnum::CreatePolicyStmt(_)
            | NodeEnum::CreatePublicationStmt(_)
            | NodeEnum::CreateRangeStmt(_)
            | NodeEnum::CreateRoleStmt(_)
            | NodeEnum::CreateSchemaStmt(_)
            | NodeEnum::CreateSeqStmt(_)
            | NodeEnum::CreateStatsStmt(_)
            | NodeEnum::CreateStmt(_)
            | NodeEnum::CreateSubscriptionStmt(_)
            | NodeEnum::CreateTableAsStmt(_)
            | NodeEnum::CreateTableSpaceStmt(_)
            | NodeEnum::CreateTransformStmt(_)
            | NodeEnum::CreateTrigStmt(_)
            | NodeEnum::CreateUserMappingStmt(_)
            | NodeEnum::CreatedbStmt(_)
            | NodeEnum::DeallocateStmt(_)
            | NodeEnum::DeclareCursorStmt(_)
            | NodeEnum::DefineStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::DiscardStmt(_)
            | NodeEnum::DoStmt(_)
            | NodeEnum::DropOwnedStmt(_)
            | NodeEnum::DropRoleStmt(_)
            | NodeEnum::DropStmt(_)
            | NodeEnum::DropSubscriptionStmt(_)
            | NodeEnum::DropTableSpaceStmt(_)
            | NodeEnum::DropUserMappingStmt(_)
            | NodeEnum::DropdbStmt(_)
            | NodeEnum::ExecuteStmt(_)
            | NodeEnum::ExplainStmt(_)
            | NodeEnum::FetchStmt(_)
            | NodeEnum::GrantRoleStmt(_)
            | NodeEnum::GrantStmt(_)
            | NodeEnum::ImportForeignSchemaStmt(_)
            | NodeEnum::IndexStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::ListenStmt(_)
            | NodeEnum::LoadStmt(_)
            | NodeEnum::LockStmt(_)
            | NodeEnum::MergeStmt(_)
            | NodeEnum::NotifyStmt(_)
            | NodeEnum::PrepareStmt(_)
            | NodeEnum::ReassignOwnedStmt(_)
            | NodeEnum::RefreshMatViewStmt(_)
            | NodeEnum::ReindexStmt(_)
            | NodeEnum::RenameStmt(_)
            | NodeEnum::ReturnStmt(_)
            | NodeEnum::RuleStmt(_)
            | NodeEnum::SecLabelStmt(_)
            | NodeEnum::SelectStmt(_)
            | NodeEnum::TransactionStmt(_)
            | NodeEnum::TruncateStmt(_)
            | NodeEnum::UnlistenStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::VacuumStmt(_)
            | NodeEnum::VariableSetStmt(_)
            | NodeEnum::VariableShowStmt(_)
            | NodeEnum::ViewStmt(_)
    };
}

/// Values.
macro_rules! expression_nodes {
    () => {
        NodeEnum::AArrayExpr(_)
            | NodeEnum::AConst(_)
            | NodeEnum::AExpr(_)
            | NodeEnum::AIndices(_)
            | NodeEnum::AIndirection(_)
            | NodeEnum::AStar(_)
            | NodeEnum::BoolExpr(_)
            | NodeEnum::BooleanTest(_)
            | NodeEnum::CaseExpr(_)
            | NodeEnum::CaseWhen(_)
            | NodeEnum::CoalesceExpr(_)
            | NodeEnum::CollateClause(_)
            | NodeEnum::ColumnRef(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::FuncCall(_)
            | NodeEnum::GroupingFunc(_)
            | NodeEnum::JsonAggConstructor(_)
            | NodeEnum::JsonArgument(_)
            | NodeEnum::JsonArrayAgg(_)
            | NodeEnum::JsonArrayConstructor(_)
            | NodeEnum::JsonArrayQueryConstructor(_)
            | NodeEnum::JsonBehavior(_)
            | NodeEnum::JsonFuncExpr(_)
            | NodeEnum::JsonIsPredicate(_)
            | NodeEnum::JsonKeyValue(_)
            | NodeEnum::JsonObjectAgg(_)
            | NodeEnum::JsonObjectConstructor(_)
            | NodeEnum::JsonParseExpr(_)
            | NodeEnum::JsonScalarExpr(_)
            | NodeEnum::JsonSerializeExpr(_)
            | NodeEnum::JsonValueExpr(_)
            | NodeEnum::List(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::MinMaxExpr(_)
            | NodeEnum::MultiAssignRef(_)
            | NodeEnum::NamedArgExpr(_)
            | NodeEnum::NullTest(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::ResTarget(_)
            | NodeEnum::RowExpr(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::SortBy(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::SubLink(_)
            | NodeEnum::TypeCast(_)
            | NodeEnum::XmlExpr(_)
            | NodeEnum::XmlSerialize(_)
    };
}

/// Parts of statements and of queries that are neither.
macro_rules! part_nodes {
    () => {
        NodeEnum::AccessPriv(_)
            | NodeEnum::Alias(_)
            | NodeEnum::AlterTableCmd(_)
            | NodeEnum::AtalterConstraint(_)
            | NodeEnum::BitString(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::ColumnDef(_)
            | NodeEnum::CommonTableExpr(_)
            | NodeEnum::Constraint(_)
            | NodeEnum::CreateOpClassItem(_)
            | NodeEnum::CtecycleClause(_)
            | NodeEnum::CtesearchClause(_)
            | NodeEnum::DefElem(_)
            | NodeEnum::Float(_)
            | NodeEnum::FunctionParameter(_)
            | NodeEnum::GroupingSet(_)
            | NodeEnum::IndexElem(_)
            | NodeEnum::InferClause(_)
            | NodeEnum::IntList(_)
            | NodeEnum::Integer(_)
            | NodeEnum::IntoClause(_)
            | NodeEnum::JoinExpr(_)
            | NodeEnum::JsonFormat(_)
            | NodeEnum::JsonOutput(_)
            | NodeEnum::JsonTable(_)
            | NodeEnum::JsonTableColumn(_)
            | NodeEnum::JsonTablePathSpec(_)
            | NodeEnum::LockingClause(_)
            | NodeEnum::MergeWhenClause(_)
            | NodeEnum::ObjectWithArgs(_)
            | NodeEnum::OnConflictClause(_)
            | NodeEnum::PartitionBoundSpec(_)
            | NodeEnum::PartitionCmd(_)
            | NodeEnum::PartitionElem(_)
            | NodeEnum::PartitionRangeDatum(_)
            | NodeEnum::PartitionSpec(_)
            | NodeEnum::PlassignStmt(_)
            | NodeEnum::PublicationObjSpec(_)
            | NodeEnum::PublicationTable(_)
            | NodeEnum::RangeFunction(_)
            | NodeEnum::RangeSubselect(_)
            | NodeEnum::RangeTableFunc(_)
            | NodeEnum::RangeTableFuncCol(_)
            | NodeEnum::RangeTableSample(_)
            | NodeEnum::RangeVar(_)
            | NodeEnum::RawStmt(_)
            | NodeEnum::ReplicaIdentityStmt(_)
            | NodeEnum::ReturningClause(_)
            | NodeEnum::ReturningOption(_)
            | NodeEnum::RoleSpec(_)
            | NodeEnum::StatsElem(_)
            | NodeEnum::String(_)
            | NodeEnum::TableLikeClause(_)
            | NodeEnum::TriggerTransition(_)
            | NodeEnum::TypeName(_)
            | NodeEnum::VacuumRelation(_)
            | NodeEnum::WindowDef(_)
            | NodeEnum::WithClause(_)
    };
}

pub(super) use {expression_nodes, never_parsed, part_nodes, statement_nodes};

/// `verb_object` for an object type.
macro_rules! object_kind {
    ($verb:literal, $object:expr) => {{
        use pg_query::protobuf::ObjectType as Object;
        match $object {
            Object::ObjectAccessMethod => concat!($verb, "_access_method"),
            Object::ObjectAggregate => concat!($verb, "_aggregate"),
            Object::ObjectAttribute | Object::ObjectType => concat!($verb, "_type"),
            Object::ObjectCast => concat!($verb, "_cast"),
            Object::ObjectColumn | Object::ObjectTabconstraint | Object::ObjectTable => {
                concat!($verb, "_table")
            }
            Object::ObjectCollation => concat!($verb, "_collation"),
            Object::ObjectConversion => concat!($verb, "_conversion"),
            Object::ObjectDatabase => concat!($verb, "_database"),
            Object::ObjectDomain | Object::ObjectDomconstraint => concat!($verb, "_domain"),
            Object::ObjectEventTrigger => concat!($verb, "_event_trigger"),
            Object::ObjectExtension => concat!($verb, "_extension"),
            Object::ObjectFdw => concat!($verb, "_foreign_data_wrapper"),
            Object::ObjectForeignServer => concat!($verb, "_server"),
            Object::ObjectForeignTable => concat!($verb, "_foreign_table"),
            Object::ObjectFunction => concat!($verb, "_function"),
            Object::ObjectIndex => concat!($verb, "_index"),
            Object::ObjectLanguage => concat!($verb, "_language"),
            Object::ObjectLargeobject => concat!($verb, "_large_object"),
            Object::ObjectMatview => concat!($verb, "_materialized_view"),
            Object::ObjectOpclass => concat!($verb, "_operator_class"),
            Object::ObjectOperator => concat!($verb, "_operator"),
            Object::ObjectOpfamily => concat!($verb, "_operator_family"),
            Object::ObjectPolicy => concat!($verb, "_policy"),
            Object::ObjectProcedure => concat!($verb, "_procedure"),
            Object::ObjectPublication => concat!($verb, "_publication"),
            Object::ObjectRole => concat!($verb, "_role"),
            Object::ObjectRoutine => concat!($verb, "_routine"),
            Object::ObjectRule => concat!($verb, "_rule"),
            Object::ObjectSchema => concat!($verb, "_schema"),
            Object::ObjectSequence => concat!($verb, "_sequence"),
            Object::ObjectSubscription => concat!($verb, "_subscription"),
            Object::ObjectStatisticExt => concat!($verb, "_statistics"),
            Object::ObjectTablespace => concat!($verb, "_tablespace"),
            Object::ObjectTransform => concat!($verb, "_transform"),
            Object::ObjectTrigger => concat!($verb, "_trigger"),
            Object::ObjectTsconfiguration => concat!($verb, "_text_search_configuration"),
            Object::ObjectTsdictionary => concat!($verb, "_text_search_dictionary"),
            Object::ObjectTsparser => concat!($verb, "_text_search_parser"),
            Object::ObjectTstemplate => concat!($verb, "_text_search_template"),
            Object::ObjectUserMapping => concat!($verb, "_user_mapping"),
            Object::ObjectView => concat!($verb, "_view"),
            Object::ObjectAmop
            | Object::ObjectAmproc
            | Object::ObjectDefault
            | Object::ObjectDefacl
            | Object::ObjectParameterAcl
            | Object::ObjectPublicationNamespace
            | Object::ObjectPublicationRel
            | Object::Undefined => concat!($verb, "_object"),
        }
    }};
}

pub(super) use object_kind;
