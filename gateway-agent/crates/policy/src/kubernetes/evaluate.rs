//! How a question about an API server is answered; the order is that of [`crate::evaluate`].

use std::sync::{Arc, LazyLock};

use mask::Detectors;

use super::{
    Kubernetes, KubernetesObligations, KubernetesTarget, Risk, ShownSecrets,
    matcher::{Bounds, KubernetesMatcher, Need, needs},
};
use crate::{
    builtin,
    evaluate::{Outcome, decided, denied_by, deny, live},
    http::{HttpLimits, HttpObligations},
    mask_set::MaskSet,
    policy::{Policy, Question, Scope},
    raw::RuleEffect,
    rule::Rule,
    ssh::Bounded,
    verdict::{Obligations, Recording},
};

/// Most needs named in one message.
const NAMED: usize = 5;

/// Who is asked about what no rule lets an object ask for.
static RISKS: LazyLock<Rule> = LazyLock::new(|| Rule {
    kubernetes: Some(KubernetesMatcher { risks: Risk::ALL.to_vec(), ..KubernetesMatcher::default() }),
    ..Rule::builtin(builtin::RISK, RuleEffect::Approve)
});

pub(crate) fn asked<'a>(
    policy: &Policy,
    question: &Question<'a>,
    scope: &'a Scope,
    action: &'a Kubernetes,
    missing: &mut Vec<String>,
) -> Outcome<'a> {
    if question.resource.kubernetes().is_none() {
        let reason = format!("resource {} is of kind {}", question.resource.name, question.resource.kind());
        return deny(builtin::DEFAULT_DENY, reason, "connect to it by its own protocol");
    }
    let rules =
        |effect: RuleEffect| live(scope, question.now, effect).filter(|rule| rule.kubernetes.is_some());
    let touched = |rule: &&'a Rule| touch(rule, action).is_some();
    let denying: Vec<_> = rules(RuleEffect::Deny).filter(touched).collect();
    if let Some(rule) = denying.first() {
        let what = touch(rule, action).unwrap_or_default();
        return denied_by(&denying, what, "leave it out, or ask for the policy to be changed");
    }
    if tells_what_there_is(action) {
        let known: Vec<_> = rules(RuleEffect::Allow).chain(rules(RuleEffect::Approve)).take(1).collect();
        if !known.is_empty() {
            return Outcome::Allowed { granting: known };
        }
    }
    // Nobody is asked about what is not stored.
    let asking: Vec<_> = match action.dry_run {
        false => rules(RuleEffect::Approve).filter(touched).collect(),
        true => Vec::new(),
    };
    let unasked = rules(RuleEffect::Approve).filter(|_| action.dry_run);
    let candidates: Vec<&Rule> =
        rules(RuleEffect::Allow).chain(unasked).chain(asking.iter().copied()).collect();
    let mut granting: Vec<&Rule> = Vec::new();
    let (mut uncovered, mut risky) = (Vec::new(), false);
    for need in needs(action) {
        let mut granted = false;
        for rule in candidates.iter().filter(|rule| grants(rule, need)) {
            granted = true;
            if !granting.iter().any(|known| std::ptr::eq(*known, *rule)) {
                granting.push(rule);
            }
        }
        match need {
            _ if granted => {}
            // Whoever agrees to a request agrees to what it asks for.
            Need::Risk(..) => risky |= asking.is_empty(),
            _ => uncovered.push(need),
        }
    }
    if !uncovered.is_empty() {
        missing.extend(uncovered.iter().map(ToString::to_string));
        return ungranted(question, action, &uncovered);
    }
    if let Some(outcome) = laundering(action, &granting) {
        return outcome;
    }
    let asking = match risky {
        true => vec![&*RISKS],
        false => asking,
    };
    decided(policy, question, asking, granting)
}

/// What of the request a rule is about, as a restriction.
pub(crate) fn touch(rule: &Rule, action: &Kubernetes) -> Option<String> {
    rule.kubernetes.as_ref()?.touched(action)
}

/// Whether a rule grants it.
pub(crate) fn grants(rule: &Rule, need: Need<'_>) -> bool {
    rule.kubernetes.as_ref().is_some_and(|matcher| matcher.grants(need))
}

/// Discovery, schemas, and questions about one's own rights: whoever may ask for anything may ask for these.
pub(crate) fn tells_what_there_is(action: &Kubernetes) -> bool {
    match &action.target {
        KubernetesTarget::Path { path } => {
            let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
            let known = matches!(
                parts.as_slice(),
                ["api" | "apis" | "version" | "swagger.json"]
                    | ["api", _]
                    | ["apis", _]
                    | ["apis", _, _]
                    | ["openapi", ..]
                    | ["healthz" | "livez" | "readyz"]
            );
            action.verb == "get" && known
        }
        KubernetesTarget::Resource(of) => {
            of.subresource.is_none()
                && action.verb == "create"
                && match of.group.as_str() {
                    "authorization.k8s.io" => {
                        matches!(of.resource.as_str(), "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
                    }
                    "authentication.k8s.io" => of.resource == "selfsubjectreviews",
                    _ => false,
                }
        }
    }
}

fn ungranted<'a>(question: &Question<'_>, action: &Kubernetes, uncovered: &[Need<'_>]) -> Outcome<'a> {
    let mut what: Vec<String> = uncovered.iter().take(NAMED).map(ToString::to_string).collect();
    if uncovered.len() > NAMED {
        what.push(format!("and {} more", uncovered.len() - NAMED));
    }
    let without_namespace =
        action.resource().is_some_and(|of| of.namespace.is_none()) && action.verb != "create";
    let hint = match uncovered.first() {
        Some(Need::Run(..)) => "run a command that a rule names, without a shell around it",
        Some(Need::Request(_)) if without_namespace => {
            "name a namespace (`-n`), or ask for a rule with `cluster: true`"
        }
        _ => "ask for a rule that allows it; `policy explain` shows every rule",
    };
    let reason = format!(
        "no rule allows {} on {}: {}",
        question.subject.name,
        question.resource.name,
        what.join(", ")
    );
    deny(builtin::DEFAULT_DENY, reason, hint)
}

fn shown(granting: &[&Rule]) -> ShownSecrets {
    let of = granting.iter().filter_map(|rule| Some(&rule.kubernetes.as_ref()?.shown));
    of.fold(ShownSecrets::None, ShownSecrets::or)
}

/// A patch that copies a Secret's values to where they are shown, or tells by failing whether one was guessed.
fn laundering<'a>(action: &Kubernetes, granting: &[&Rule]) -> Option<Outcome<'a>> {
    let of = action.resource().filter(|of| of.is_core("secrets"))?;
    let shown = shown(granting);
    let seen = shown.all() || of.name.as_deref().is_some_and(|name| shown.has(name));
    (action.reads_stored && !seen).then(|| {
        deny(
            builtin::LAUNDERING,
            "contents of Secrets are hidden: a patch may not copy, move or test them".to_owned(),
            "write the new values: `add`, `replace` and `remove` are let through",
        )
    })
}

/// What an allow of this request is conditional on.
pub(crate) fn obligations(granting: &[&Rule], masks: &MaskSet) -> Obligations {
    let bounds = || granting.iter().filter_map(|rule| Some((&rule.kubernetes.as_ref()?.limits, &rule.id)));
    let record = granting.iter().map(|rule| rule.record).max().unwrap_or_default();
    let detectors = masks.with_secrets();
    let of_kubernetes = KubernetesObligations { shown: shown(granting), detectors: Arc::clone(&detectors) };
    let http = HttpObligations { limits: limits(bounds()), ..HttpObligations::default() };
    Obligations {
        detectors: Some(detectors),
        masks: Arc::clone(&masks.ids),
        record: record.max(Recording::Statements),
        http: Some(Arc::new(http)),
        kubernetes: Some(Arc::new(of_kubernetes)),
        ..Obligations::default()
    }
}

/// Keys and tokens, which no answer shows.
pub(crate) const SECRETS: &[mask::Detector] = &[
    mask::Detector::AwsAccessKey,
    mask::Detector::GithubToken,
    mask::Detector::SlackToken,
    mask::Detector::StripeKey,
    mask::Detector::GcpKey,
    mask::Detector::PrivateKey,
    mask::Detector::Jwt,
];

/// Those of the policy's masks, and keys and tokens.
pub(crate) fn detectors(parts: &[(mask::Detector, Option<mask::Partial>)]) -> Arc<Detectors> {
    let more = SECRETS.iter().map(|detector| (*detector, None));
    Arc::new(Detectors::new(&parts.iter().copied().chain(more).collect::<Vec<_>>()))
}

fn limits<'a>(bounds: impl Iterator<Item = (&'a Bounds, &'a Arc<str>)> + Clone) -> HttpLimits {
    fn strictest<'a, T: Ord + Copy>(
        bounds: impl Iterator<Item = (&'a Bounds, &'a Arc<str>)>,
        of: fn(&Bounds) -> Option<T>,
    ) -> Option<Bounded<T>> {
        let found =
            bounds.filter_map(|(bounds, rule)| Some(Bounded { most: of(bounds)?, rule: Arc::clone(rule) }));
        found.min_by_key(|bound| bound.most)
    }
    let rate = |(bounds, rule): (&Bounds, &Arc<str>)| {
        bounds.per_minute.map(|most| Bounded { most, rule: Arc::clone(rule) })
    };
    HttpLimits {
        request_bytes: None,
        response_bytes: strictest(bounds.clone(), |bounds| bounds.response_bytes),
        duration: strictest(bounds.clone(), |bounds| bounds.duration),
        per_minute: bounds.filter_map(rate).collect(),
    }
}
