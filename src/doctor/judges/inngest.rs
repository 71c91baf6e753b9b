//! Inngest's event API.

use crate::doctor::catalogue::{Area, INNGEST_KEY, INNGEST_UNREACHABLE};
use crate::doctor::finding::{Finding, Verdicts};
use crate::inngest::{Answer, Reached};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub reached: Result<Reached, String>,
    /// What a test event was answered; `None`: none was sent.
    pub test: Option<Answer>,
}

#[must_use]
pub fn judge(asked: &Asked, base_url: &str, is_dev: bool) -> Verdicts {
    let mut verdicts = Verdicts::default();
    match &asked.reached {
        // A gateway speaks for a server that is away.
        Ok(reached) if reached.status >= 500 => {
            let what = format!("{base_url} is broken: nothing is delivered");
            let finding = Finding::failed(INNGEST_UNREACHABLE, what).saw(format!("it answers {}", reached.status));
            verdicts.push(finding.fix(format!(
                "Wait, and look at https://status.inngest.com; `curl -sv {base_url}`"
            )));
            verdicts.rest_after(&[Area::Inngest], INNGEST_UNREACHABLE);
            return verdicts;
        }
        Ok(reached) => {
            let what = format!("{base_url} answers ({})", reached.status);
            verdicts.push(Finding::ok(INNGEST_UNREACHABLE, what));
        }
        Err(why) => {
            let finding = Finding::failed(
                INNGEST_UNREACHABLE,
                format!("{base_url} does not answer: nothing is delivered"),
            );
            verdicts.push(
                finding
                    .saw(why)
                    .fix(format!("Check INNGEST_BASE_URL and the network: `curl -sv {base_url}`")),
            );
            verdicts.rest_after(&[Area::Inngest], INNGEST_UNREACHABLE);
            return verdicts;
        }
    }
    verdicts.push(match &asked.test {
        None if is_dev => Finding::ok(INNGEST_KEY, "a dev server takes any key"),
        None => Finding::unknown(INNGEST_KEY, "only an event that is taken shows that the key is right")
            .fix("crm-event-processors check --only inngest --send-test-event"),
        Some(Answer::Accepted) => Finding::ok(INNGEST_KEY, "a test event was taken"),
        Some(Answer::Refused { status, detail }) => {
            Finding::failed(INNGEST_KEY, "Inngest refuses INNGEST_EVENT_KEY")
                .saw(format!("{status}: {detail}"))
                .fix("Correct INNGEST_EVENT_KEY: the event key of this environment; for a branch environment also INNGEST_ENV")
        }
        Some(Answer::Rejected { status, detail } | Answer::Unknown { status, detail }) => {
            Finding::unknown(INNGEST_KEY, format!("the test event was answered {status}: {detail}"))
        }
        Some(Answer::Unavailable { detail, .. }) => Finding::unknown(INNGEST_KEY, format!("no answer to the test event: {detail}")),
    });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of, troubles};
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_gateway_that_speaks_for_it_is_not_the_event_api() {
        let reached = Ok(Reached {
            status: 502,
            ahead_ms: None,
            took_ms: 1,
        });
        let verdicts = judge(&Asked { reached, test: None }, "https://inn.gs", true);
        assert_eq!(troubles(&verdicts), [("inngest.unreachable", Severity::Failed)]);
    }

    fn judged(test: Option<Answer>, is_dev: bool) -> Verdicts {
        let reached = Ok(Reached {
            status: 404,
            ahead_ms: None,
            took_ms: 1,
        });
        judge(&Asked { reached, test }, "https://inn.gs", is_dev)
    }

    #[test]
    fn an_event_api_that_is_away_explains_the_rest() {
        let asked = Asked {
            reached: Err("refused".to_owned()),
            test: None,
        };
        let verdicts = judge(&asked, "https://inn.gs", false);
        assert_eq!(troubles(&verdicts), [("inngest.unreachable", Severity::Failed)]);
        assert_eq!(of(&verdicts, INNGEST_KEY).what, "inngest.unreachable first");
    }

    #[test]
    fn a_key_is_known_by_an_event_that_was_taken_and_by_nothing_else() {
        let (status, detail) = (401, "no".to_owned());
        for (test, severity) in [
            (None, Severity::NotVerifiable),
            (Some(Answer::Accepted), Severity::Ok),
            (
                Some(Answer::Refused {
                    status,
                    detail: detail.clone(),
                }),
                Severity::Failed,
            ),
            (
                Some(Answer::Rejected {
                    status,
                    detail: detail.clone(),
                }),
                Severity::NotVerifiable,
            ),
            (
                Some(Answer::Unknown {
                    status,
                    detail: detail.clone(),
                }),
                Severity::NotVerifiable,
            ),
            (
                Some(Answer::Unavailable {
                    detail,
                    retry_after: None,
                }),
                Severity::NotVerifiable,
            ),
        ] {
            assert_eq!(
                of(&judged(test.clone(), false), INNGEST_KEY).severity,
                severity,
                "{test:?}"
            );
        }
        assert_eq!(of(&judged(None, true), INNGEST_KEY).severity, Severity::Ok);
    }
}
