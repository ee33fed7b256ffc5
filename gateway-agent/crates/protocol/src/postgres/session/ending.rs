//! How a session ends.

use super::{Phase, Session};
use crate::{
    postgres::{
        Refusal,
        message::{
            frame,
            report::{Report, Severity},
        },
    },
    step::CloseReason,
};

impl Session {
    /// Ends the session with a FATAL error to the client.
    pub(super) fn fail(&mut self, refusal: &Refusal, reason: CloseReason) {
        // Inside a message that is being relayed there is no place for another one.
        if self.up_rest == 0 {
            self.spill();
            let report = Report {
                severity: Severity::Fatal,
                sqlstate: refusal.sqlstate,
                message: &refusal.message,
                detail: refusal.detail.as_deref(),
                hint: refusal.hint.as_deref(),
            };
            report.write(self.job_out.vec());
        }
        self.terminate_upstream();
        self.ask = None;
        self.phase = Phase::Closed(reason);
    }

    fn terminate_upstream(&mut self) {
        if self.phase == Phase::Ready && self.job_rest == 0 && !self.gone {
            frame(self.up_out.vec(), b'X', |_| {});
        }
    }

    /// The client broke the protocol.
    pub(super) fn fail_job(&mut self, why: &'static str) {
        let refusal = Refusal {
            sqlstate: "08P01",
            message: format!("the gateway ends the connection: {why}"),
            detail: None,
            hint: None,
        };
        self.log.refused(refusal.sqlstate, &refusal.message);
        self.fail(&refusal, CloseReason::Job(why));
    }

    /// The server broke the protocol: what it sends can no longer be told apart.
    pub(super) fn fail_upstream(&mut self, why: &'static str) {
        let refusal = Refusal {
            sqlstate: "08P01",
            message: format!("the gateway ends the connection: {why}"),
            detail: None,
            hint: Some("Nothing of the result that was being sent is shown from here on.".to_owned()),
        };
        self.log.refused(refusal.sqlstate, &refusal.message);
        self.fail(&refusal, CloseReason::Upstream(why));
    }

    pub(super) fn lose_upstream(&mut self) {
        if self.fatal || self.up_rest > 0 {
            // The server said itself why, or there is no place to say it.
            self.ask = None;
            self.phase = Phase::Closed(CloseReason::UpstreamGone);
            return;
        }
        let refusal = Refusal {
            sqlstate: "08006",
            message: "the database server closed the connection".to_owned(),
            detail: None,
            hint: None,
        };
        self.fail(&refusal, CloseReason::UpstreamGone);
    }

    /// Moves messages of the gateway's own to the client, where one may begin.
    pub(super) fn spill(&mut self) {
        if self.up_rest == 0 && !self.side.is_empty() {
            self.job_out.vec().append(&mut self.side);
        }
    }
}
