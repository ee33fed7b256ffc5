//! From the client's startup message to a connection upstream.

use std::{sync::Arc, time::Instant};

use policy::{Action, ApprovalTerms, Connect, Denial, Effect, Grant, Policy, Question, Verdict, builtin};
use protocol::postgres::{Login, Refusal, Startup};

use super::Driver;
use crate::{
    approval::{self, Binding},
    credential::{self, Account},
    session::{
        legs::Pipe,
        observer::{Approval, Lost},
        registry::Command,
        scope::Key,
    },
    telemetry::FlowResult,
    upstream::{self, Place},
};

impl Driver {
    /// Decides the connection and opens it, or tells the client why not.
    pub(super) async fn login(&mut self) {
        let startup = self.session.startup().clone();
        let named = (startup.database.clone(), startup.user.clone());
        // Set once: a session logs in once.
        let _ = self.registration.live.login.set(named);
        match self.try_login(&startup).await {
            Ok(login) => self.session.login(login),
            Err(refusal) => {
                if self.result == FlowResult::Abandoned {
                    self.result = FlowResult::Denied;
                }
                self.session.refuse(&refusal);
            }
        }
    }

    /// The gateway's own account on this resource.
    fn login_of(&self) -> Result<&policy::Login, Refusal> {
        self.resource.postgres().map(|of| &of.login).ok_or_else(|| {
            refused(&[builtin::DEFAULT_DENY.into()], "policy no longer says that this is PostgreSQL", None)
        })
    }

    async fn try_login(&mut self, startup: &Startup) -> Result<Login, Refusal> {
        let shared = Arc::clone(&self.worker.shared);
        let asked = Instant::now();
        let policy = shared.policy.load_full();
        if let Some(resource) = policy.addresses.find_database(self.flow.original, &startup.database) {
            self.resource = Arc::clone(resource);
            self.registration.live.set_resource(&resource.name);
        }
        let action = Action::Connect(Connect {
            database: startup.database.clone(),
            user: startup.user.clone(),
            application: startup.application.clone(),
        });
        let mut verdict = self.decide(&policy.policy, &action, None)?;
        let mut approval = None;
        if let Effect::Approve(terms) = &verdict.effect {
            let (grant, by) = self.approved_connect(&policy.policy, startup, &verdict, terms).await?;
            verdict = self.decide(&policy.policy, &action, Some(&grant))?;
            approval = Some(by);
        }
        if !self.may_replicate(&policy.policy, startup) && !matches!(verdict.effect, Effect::Deny(_)) {
            verdict.effect = Effect::Deny(Denial {
                reason: format!("no rule allows replication from {}", self.resource.name),
                hint: "a rule with `replication: true` would, beside `everything`".to_owned(),
            });
            verdict.rules = vec![builtin::REPLICATION.into()];
        }
        let recording = self.observer.connect(startup, &verdict, approval.as_ref(), asked.elapsed()).await;
        let allow = match verdict.effect {
            Effect::Allow(allow) => allow,
            Effect::Deny(denial) => return Err(refused(&verdict.rules, &denial.reason, Some(denial.hint))),
            Effect::Approve(_) => {
                return Err(refused(&verdict.rules, "the approval does not cover this", None));
            }
        };
        recording.map_err(|lost| unrecorded(&lost))?;

        let unavailable = |why: String| Refusal {
            sqlstate: "08001",
            message: format!("the gateway cannot use resource {}: {why}", self.resource.name),
            detail: None,
            hint: Some("Ask the operators of the gateway; its log and audit say more.".to_owned()),
        };
        let started = Instant::now();
        let place = Place {
            resource: Arc::clone(&self.resource.name),
            address: self.flow.original,
            database: startup.database.clone(),
        };
        // From the first look at its names until decisions are made, which stay there themselves.
        let _stay = shared.catalogues.stay(&place);
        let open = policy
            .policy
            .subject_named(&self.registration.live.subject)
            .is_some_and(|subject| policy.policy.lets_everything(&subject, &self.resource));
        let read = match open {
            true => Ok(upstream::no_names()),
            false => {
                let catalogues = &shared.catalogues;
                catalogues.get(&shared.tls, &allow.permit, &self.resource, &place, &shared.mask_key).await
            }
        };
        let catalogue = match read {
            Ok(catalogue) => catalogue,
            Err(error) => {
                self.result = FlowResult::Upstream;
                self.observer.upstream_failed(&error.to_string());
                return Err(unavailable("its catalogue cannot be read".to_owned()));
            }
        };
        let (account, secret) = match credential::template(&self.resource) {
            None => {
                let secret = credential::for_resource(&allow.permit, &self.resource).map_err(|error| {
                    self.observer.upstream_failed(&error.to_string());
                    unavailable("its credential cannot be read".to_owned())
                })?;
                let user = self.login_of()?.role(&startup.user).to_owned();
                (Account::Resource { user: user.clone() }, credential::Login { user, ..secret })
            }
            Some(template) => {
                let job = self.registration.live.job;
                let made = shared.roles.login(&allow.permit, &self.resource, template, &place, job).await;
                let login = made.map_err(|error| {
                    self.result = FlowResult::Upstream;
                    self.observer.upstream_failed(&error.to_string());
                    unavailable(format!("no role could be made for the job: {error}"))
                })?;
                (Account::Role(login.clone()), login)
            }
        };
        let patience = shared.config.sessions.login_timeout;
        let stream = upstream::connect(&allow.permit, &self.resource, self.flow.original, patience)
            .await
            .map_err(|error| {
                self.observer.upstream_failed(&error.to_string());
                unavailable(error.to_string())
            })?;
        self.observer.connected(started.elapsed());
        let tls = shared
            .tls
            .upstream(&self.resource, self.flow.original)
            .map_err(|error| unavailable(error.to_string()))?
            .is_some();
        self.upstream = Some(Pipe::new(stream));
        let user = self.login_of()?.user.clone();
        let own = Account::Resource { user: user.clone() };
        self.prober = Some(self.worker.side(&self.resource, &place, &user, own));
        self.estimator = Some(self.worker.side(&self.resource, &place, &secret.user, account));
        let key = Key { subject: Arc::clone(&self.registration.live.subject), place };
        let decisions = self.worker.decisions(key, catalogue, allow.permit).ok_or_else(|| {
            refused(&["builtin:no-subject".into()], "policy no longer names this job", None)
        })?;
        self.epoch = decisions.epoch();
        let login = Login {
            password: Some(secret.password_bytes()),
            user: secret.user,
            database: startup.database.clone(),
            tls,
            // Where everything is let through, nothing rests on what names mean.
            settings: match open {
                true => Vec::new(),
                false => {
                    vec![("search_path".to_owned(), upstream::search_path(self.resource.search_path()))]
                }
            },
            epoch: self.epoch,
            open,
            own: false,
            origins: decisions.origins.clone(),
            mask_key: Arc::clone(&shared.mask_key),
        };
        self.decisions = Some(decisions);
        // Whatever a human or the catalogue took is not the server's time.
        self.deadline = Some(Box::pin(tokio::time::sleep(patience)));
        Ok(login)
    }

    /// False for a replication connection that no rule allows.
    fn may_replicate(&self, policy: &Policy, startup: &Startup) -> bool {
        let allowed = || {
            let subject = policy.subject_named(&self.registration.live.subject)?;
            Some(policy.lets_replicate(&subject, &self.resource))
        };
        startup.replication.is_none() || allowed() == Some(true)
    }

    fn decide(&self, policy: &Policy, action: &Action, grant: Option<&Grant>) -> Result<Verdict, Refusal> {
        let subject = policy.subject_named(&self.registration.live.subject).ok_or_else(|| {
            refused(&["builtin:no-subject".into()], "policy no longer names this job", None)
        })?;
        Ok(policy.decide(&Question {
            subject: &subject,
            resource: &self.resource,
            action,
            now: crate::clock::now(),
            grant,
        }))
    }

    /// Waits for a human before the connection is made. Clients cannot be told anything at this point of the
    /// protocol; they see a login that takes long.
    async fn approved_connect(
        &mut self,
        policy: &Policy,
        startup: &Startup,
        verdict: &Verdict,
        terms: &ApprovalTerms,
    ) -> Result<(Grant, Approval), Refusal> {
        let live = Arc::clone(&self.registration.live);
        let binding = Binding {
            statement: format!("connect to database {} as {}", startup.database, startup.user),
            params: Vec::new(),
            job: live.job,
            resource: live.resource(),
            policy_version: Arc::clone(policy.version()),
        };
        let deny = |why: &str| {
            refused(&verdict.rules, why, Some("Connecting here needs a human's approval.".to_owned()))
        };
        let request = self.approval_request(binding.clone(), &verdict.rules, terms);
        let mut ticket = self.worker.shared.approvals.request(request).map_err(|e| deny(&e.to_string()))?;
        let id = Arc::clone(ticket.id());
        self.observer.approval(&id, "asked", &[]).map_err(|lost| unrecorded(&lost))?;
        let outcome = loop {
            tokio::select! {
                outcome = ticket.wait() => break outcome,
                Some(command) = self.registration.commands.recv() => if let Command::End(why) = command {
                    return Err(deny(&why));
                },
            }
        };
        let (word, by) = outcome.told();
        self.observer.approval(&id, word, by).map_err(|lost| unrecorded(&lost))?;
        match outcome {
            approval::Outcome::Approved(approved) => {
                let by = approved.by.clone();
                let (rules, version) = approved.redeem(&binding).map_err(|stale| deny(&stale.to_string()))?;
                Ok((Grant::approved(rules, version), Approval { id, by }))
            }
            approval::Outcome::Denied { by, reason } => {
                Err(deny(&format!("{by} denied approval {id}: {reason}")))
            }
            approval::Outcome::Expired => Err(deny(&format!("nobody approved request {id} in time"))),
        }
    }

    /// Policy changed: the connection itself is decided again; statements are, when they come.
    pub(super) fn redecide(&mut self) {
        let Some((database, user)) = self.registration.live.login.get().cloned() else { return };
        let policy = self.worker.shared.policy.load_full();
        let action = Action::Connect(Connect {
            database,
            user,
            application: self.session.startup().application.clone(),
        });
        let still = policy
            .policy
            .resource_named(&self.resource.name)
            .filter(|now| now.as_ref() == self.resource.as_ref())
            .is_some_and(|_| {
                self.decide(&policy.policy, &action, None)
                    .is_ok_and(|verdict| !matches!(verdict.effect, Effect::Deny(_)))
            })
            && self.may_replicate(&policy.policy, self.session.startup());
        let refreshed = match &self.decisions {
            Some(decisions) => self.worker.refresh(decisions),
            None => true,
        };
        let masked_since = self.defined_under.as_ref().is_some_and(|then| {
            let subject = policy.policy.subject_named(&self.registration.live.subject);
            let now = subject.and_then(|subject| policy.policy.column_masks(&subject, &self.resource));
            now != *then
        });
        if !still || !refreshed || masked_since {
            self.waiting = super::Waiting::Nothing;
            self.session.terminate(&Refusal {
                sqlstate: "57P01",
                message: match masked_since {
                    true => "terminating connection: the gateway's masks changed after this session defined objects",
                    false => "terminating connection: the gateway's policy no longer allows it",
                }
                .to_owned(),
                detail: None,
                hint: Some("Connect again; a rule that refuses is named then.".to_owned()),
            });
        }
    }
}

fn unrecorded(lost: &Lost) -> Refusal {
    refused(&["builtin:recording-required".into()], &lost.to_string(), None)
}

fn refused(rules: &[Arc<str>], reason: &str, hint: Option<String>) -> Refusal {
    Refusal::policy(rules.first().map_or("builtin:default-deny", |r| &**r), reason, hint)
}
