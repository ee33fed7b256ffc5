//! From written policy to checked policy: everything wrong is reported at once, with its place.

mod dns;
pub(crate) mod kind;
mod limits;
pub(crate) mod resource;
mod role;
mod rule;
mod subject;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    diagnostic::{self, Diagnostic, Findings, Place},
    mask_set::MaskSet,
    model::{Resource, ResourceKind, SubjectMatch},
    policy::{Policy, Scope, Source},
    raw::{RawPolicy, RuleEffect},
    rule::Rule,
};

/// The one version of the language.
const VERSION: u32 = 1;

pub(crate) fn load(sources: &[Source]) -> Result<Policy, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let mut raws = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        if let Some(duplicate) = diagnostic::duplicate_key(&source.name, &source.text) {
            diagnostics.push(duplicate);
            continue;
        }
        match serde_yaml::from_str::<RawPolicy>(&source.text) {
            Ok(raw) => raws.push((index, raw)),
            Err(error) => diagnostics.push(diagnostic::from_yaml(&source.name, &error)),
        }
    }
    // A file that cannot be read leaves names undefined that others use: say what is wrong with it first.
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut findings = Findings::default();
    let policy = check(&raws, version(sources), &mut findings);
    if findings.0.is_empty() {
        return Ok(policy);
    }
    Err(resolve(sources, findings))
}

/// Names the file, line and column of each finding.
pub(crate) fn resolve(sources: &[Source], findings: Findings) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<_> = findings
        .0
        .into_iter()
        .filter_map(|finding| {
            let source = sources.get(finding.place.source)?;
            let (line, column) = diagnostic::locate(&source.text, &finding.place.path);
            let file = source.name.clone();
            Some((
                finding.place.source,
                Diagnostic { file, line, column, message: finding.message, hint: finding.hint },
            ))
        })
        .collect();
    diagnostics.sort_by_key(|(source, diagnostic)| (*source, diagnostic.line, diagnostic.column));
    diagnostics.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

fn version(sources: &[Source]) -> Arc<str> {
    let mut hasher = blake3::Hasher::new();
    for source in sources {
        // Each text hashed by itself, so that no two splits of the same bytes are the same policy.
        hasher.update(blake3::hash(source.text.as_bytes()).as_bytes());
    }
    let hex = hasher.finalize().to_hex();
    Arc::from(hex.get(..16).unwrap_or(&hex))
}

fn check(raws: &[(usize, RawPolicy)], version: Arc<str>, findings: &mut Findings) -> Policy {
    for (source, raw) in raws {
        if raw.version != VERSION {
            findings.add(
                Place { source: *source, path: vec!["version".into()] },
                format!("version {} of the policy language is not known", raw.version),
                format!("write `version: {VERSION}`"),
            );
        }
    }
    let subjects = subject::subjects(raws, findings);
    let groups = subject::groups(raws, &subjects, findings);
    let resources = resource::resources(raws, findings);
    let names = Names {
        subjects: subjects.iter().map(|matcher| matcher.subject.name.clone()).collect(),
        groups,
        resources: resources.iter().map(|resource| resource.name.clone()).collect(),
        kinds: resources.iter().map(|resource| (resource.name.clone(), resource.kind())).collect(),
    };
    let rules = rule::rules(raws, &names, findings);
    let masks = rule::masks(raws, &names, findings);
    unrestricted(&subjects, &resources, &rules, &masks, findings);
    let taken = rules.iter().map(|rule| rule.item.id.clone());
    let host_names = dns::names(raws, &names, taken, findings);
    let scopes = scopes(&subjects, &resources, &rules, &masks);
    Policy { version, scopes, subjects, resources, names: host_names }
}

/// What rules and masks may refer to.
pub(crate) struct Names {
    subjects: BTreeSet<Arc<str>>,
    /// Each group with all its subjects.
    groups: HashMap<String, BTreeSet<Arc<str>>>,
    resources: BTreeSet<Arc<str>>,
    kinds: HashMap<Arc<str>, ResourceKind>,
}

/// Subjects or resources that something is for.
#[derive(Debug)]
pub(crate) enum Scoped {
    All,
    Only(BTreeSet<Arc<str>>),
}

impl Scoped {
    fn has(&self, name: &Arc<str>) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Something that is for some subjects on some resources.
pub(crate) struct Placed<T> {
    pub(crate) subjects: Scoped,
    pub(crate) resources: Scoped,
    pub(crate) place: Place,
    pub(crate) item: T,
}

fn scopes(
    subjects: &[SubjectMatch],
    resources: &[Arc<Resource>],
    rules: &[Placed<Arc<Rule>>],
    masks: &[Placed<rule::Mask>],
) -> HashMap<Arc<str>, HashMap<Arc<str>, Scope>> {
    // Most pairs share their masks; compiled recognisers are worth sharing.
    let mut sets: HashMap<Vec<usize>, Arc<MaskSet>> = HashMap::new();
    let mut scopes: HashMap<Arc<str>, HashMap<Arc<str>, Scope>> = HashMap::new();
    for subject in subjects {
        let subject = &subject.subject.name;
        let of_subject = scopes.entry(subject.clone()).or_default();
        for resource in resources {
            let rules = rules
                .iter()
                .filter(|rule| rule.subjects.has(subject) && rule.resources.has(&resource.name))
                .map(|rule| rule.item.clone())
                .collect();
            let applying: Vec<_> = masks
                .iter()
                .enumerate()
                .filter(|(_, mask)| mask.subjects.has(subject) && mask.resources.has(&resource.name))
                .collect();
            let key = applying.iter().map(|(index, _)| *index).collect();
            let masks = sets
                .entry(key)
                .or_insert_with(|| rule::mask_set(applying.iter().map(|(_, mask)| &mask.item)))
                .clone();
            of_subject.insert(resource.name.clone(), Scope { rules, masks });
        }
    }
    scopes
}

/// What cannot be read cannot be restricted: a rule that lets everything through stands where nothing restricts.
fn unrestricted(
    subjects: &[SubjectMatch],
    resources: &[Arc<Resource>],
    rules: &[Placed<Arc<Rule>>],
    masks: &[Placed<rule::Mask>],
    findings: &mut Findings,
) {
    for open in rules.iter().filter(|rule| rule.item.lets_everything()) {
        let both = |subjects_of: &Scoped, resources_of: &Scoped| {
            let subject = subjects
                .iter()
                .map(|matcher| &matcher.subject.name)
                .find(|name| open.subjects.has(name) && subjects_of.has(name))?;
            let resource = resources
                .iter()
                .map(|resource| &resource.name)
                .find(|name| open.resources.has(name) && resources_of.has(name))?;
            Some(format!("for subject `{subject}` on resource `{resource}`"))
        };
        let restricting = rules
            .iter()
            .filter(|rule| rule.item.statements.is_some() && rule.item.effect != RuleEffect::Allow)
            .map(|rule| (format!("rule `{}`", rule.item.id), &rule.subjects, &rule.resources))
            .chain(
                masks
                    .iter()
                    .filter(|mask| !mask.item.is_elsewhere())
                    .map(|mask| (mask.item.owner(), &mask.subjects, &mask.resources)),
            );
        for (owner, subjects, resources) in restricting {
            if let Some(place) = both(subjects, resources) {
                findings.add(
                    open.place.at("statements").at("everything"),
                    format!("rule `{}` lets everything through where {owner} restricts, {place}", open.item.id),
                    "name classes, relations and functions instead, or leave these subjects or resources out of one",
                );
            }
        }
    }
}

/// Complains about a name that cannot be used as one; `what` is `subject`, `rule id` and so on.
fn check_name(what: &str, name: &str, place: &Place, findings: &mut Findings) {
    let plain = |c: char| c.is_alphanumeric() || "._-/@+".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        findings.add(
            place.clone(),
            format!("{name:?} cannot be the name of a {what}"),
            "use letters, digits and . _ - / @ +",
        );
    }
}

/// Complains about the second use of a name.
fn check_unique(
    what: &str,
    name: &str,
    place: &Place,
    seen: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> bool {
    let new = seen.insert(name.to_owned());
    if !new {
        findings.add(
            place.clone(),
            format!("duplicate {what} `{name}`"),
            "every name is given once; rename one of the two",
        );
    }
    new
}
