//! One id explained: takes a row or a member, gives what the consumers decide about it, what was done, and what comes next.
//!
//! It asks the database only, writes nothing, and shows no column that no decision reads: not the text of a voucher either.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::GRACE_MS;
use super::balance::{Place, verdicts};
use super::state::{Verdict, Way, decide, newest_ms, read};
use crate::consumers::{Consumer, Decision, Effect, Reason, Rules};
use crate::postgres::{Books, EffectState, Ledger, LedgerError, LedgerRow, MemberState, Noted};
use crate::rows::Table;

/// Who is asked, and as of when.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub books: &'a Books,
    pub ledger: &'a dyn Ledger,
    pub rules: &'a Rules,
    pub consumers: &'a [Consumer],
    pub now: Timestamp,
}

/// A row and everything known of it.
#[derive(Debug, Serialize)]
pub struct RowDossier {
    pub table: &'static str,
    pub id: String,
    /// The columns that decisions read, as the database writes them: amounts are exact.
    pub row: BTreeMap<String, Box<RawValue>>,
    /// Why it cannot be read, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    pub decisions: Vec<Decided>,
}

/// What one consumer decides, and what became of it.
#[derive(Debug, Serialize)]
pub struct Decided {
    pub consumer: &'static str,
    /// `deliver`, `ignore` or `refuse`.
    pub decision: &'static str,
    pub reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect_key: Option<String>,
    /// The id that a heal of this state would have, but for its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at: Option<String>,
    /// Where the fact stands, in the words of `reconcile`; none if there is nothing to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectState>,
    pub announcements: Vec<Noted>,
    /// What was done, and what comes next and when.
    pub next: String,
}

/// A member and everything known of them.
#[derive(Debug, Serialize)]
pub struct MemberDossier {
    pub merchant_id: String,
    pub user_id: String,
    #[serde(flatten)]
    pub state: MemberState,
    /// Everything that is not settled, and every mission.
    pub effects: Vec<Known>,
    /// Those that were not sent: not yet, or never, as they were rejected.
    pub announcements: Vec<Noted>,
}

/// A fact of a member, and what comes next.
#[derive(Debug, Serialize)]
pub struct Known {
    pub next: String,
    #[serde(flatten)]
    pub state: EffectState,
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// The rows with this id, table by table.
///
/// # Errors
/// The database fails.
pub async fn rows(asked: &Asked<'_>, tables: &[Table], id: &str) -> Result<Vec<RowDossier>, LedgerError> {
    let mut found = Vec::new();
    for table in tables {
        for row in asked.books.rows_of(*table, &[id]).await? {
            found.push(of_row(asked, *table, &row).await?);
        }
    }
    Ok(found)
}

async fn of_row(asked: &Asked<'_>, table: Table, row: &LedgerRow) -> Result<RowDossier, LedgerError> {
    let Asked {
        books,
        ledger,
        rules,
        consumers,
        now,
    } = *asked;
    let mut image: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&row.image).unwrap_or_default();
    image.retain(|name, _| columns(table).contains(&name.as_str()));
    let mut dossier = RowDossier {
        table: table.name(),
        id: row.id.clone(),
        row: image,
        unreadable: None,
        decisions: Vec::new(),
    };
    let change = match read(table, row) {
        Ok(change) => change,
        Err(problem) => {
            dossier.unreadable = Some(problem);
            return Ok(dossier);
        }
    };
    let age_ms = newest_ms(&change.row).map(|newest_ms| row.read_at_ms.saturating_sub(newest_ms));
    for consumer in consumers.iter().copied().filter(|consumer| consumer.reads(table)) {
        let plain = |decision, reason, next: &str| plain(consumer, decision, reason, next);
        match decide(consumer, &change, rules, now) {
            Decision::Ignore(reason) => {
                dossier
                    .decisions
                    .extend(ignored(books, consumer, (table, &row.id), reason).await?);
            }
            Decision::Refuse(refusal) => {
                let next = format!("Its record is in the dead letters: {refusal}.");
                dossier.decisions.push(plain("refuse", refusal.reason(), &next));
            }
            Decision::RefuseIfKnown(refusal, key) => dossier.decisions.push(if ledger.knows(&key).await? {
                let next = format!("Its record is in the dead letters: {refusal}.");
                plain("refuse", refusal.reason(), &next)
            } else {
                plain("ignore", Reason::BeforeCutOff.as_str(), "Nothing is to be done.")
            }),
            Decision::Deliver(effects) => {
                for effect in effects {
                    let decided = plain("deliver", effect.reason.as_str(), "");
                    dossier
                        .decisions
                        .push(of_effect(books, ledger, &effect, age_ms, decided).await?);
                }
            }
        }
    }
    Ok(dossier)
}

fn plain(consumer: Consumer, decision: &'static str, reason: &'static str, next: &str) -> Decided {
    Decided {
        consumer: consumer.name(),
        decision,
        reason,
        effect_key: None,
        event_id: None,
        target: None,
        due_at: None,
        place: None,
        effect: None,
        announcements: Vec::new(),
        next: next.to_owned(),
    }
}

/// What is known of a row that leads to nothing now.
async fn ignored(
    books: &Books,
    consumer: Consumer,
    (table, id): (Table, &str),
    reason: Reason,
) -> Result<Vec<Decided>, LedgerError> {
    let mut states = books.states_of_row(table, id).await?;
    states.retain(|state| settler(&state.kind) == Some(consumer));
    if states.is_empty() {
        return Ok(vec![plain(
            consumer,
            "ignore",
            reason.as_str(),
            "Nothing is to be done.",
        )]);
    }
    let mut decided = Vec::new();
    for state in states {
        let next = format!(
            "Nothing is to be done about the row as it is now. {}",
            next(place_of(&state), &state)
        );
        decided.push(Decided {
            effect_key: Some(state.effect_key.clone()),
            announcements: books.noted(&[&state.effect_key]).await?,
            effect: Some(state),
            ..plain(consumer, "ignore", reason.as_str(), &next)
        });
    }
    Ok(decided)
}

async fn of_effect(
    books: &Books,
    ledger: &dyn Ledger,
    effect: &Effect,
    age_ms: Option<i64>,
    decided: Decided,
) -> Result<Decided, LedgerError> {
    let key = effect.key.as_str();
    let state = books.states(&[key]).await?.remove(key);
    let verdict = verdicts(ledger, std::iter::once(effect)).await?.into_iter().next();
    let mut verdict = verdict.unwrap_or(Verdict::Missing);
    let dead = books.still_dead(&[effect]).await?.into_iter().any(|dead| dead);
    let way = Way::of(effect);
    if way == Way::Tiers && verdict.is_open() && state.is_some() {
        // One row cannot tell more than that the member was evaluated.
        verdict = Verdict::Known;
    }
    let place = Place::of(verdict, state.as_ref(), dead, age_ms, GRACE_MS);
    let fact = effect.fact();
    Ok(Decided {
        effect_key: Some(key.to_owned()),
        event_id: (way == Way::Event).then(|| effect.claim.as_str().to_owned()),
        target: (way == Way::Event).then_some(fact.target),
        due_at: fact.due_at.map(|due_at| due_at.to_string()),
        place: place.map(Place::name),
        announcements: books.noted(&[key]).await?,
        next: match (verdict, place, &state) {
            (Verdict::NotOurs, ..) => {
                "It is older than the cut-off, and nothing is known of it: none of ours.".to_owned()
            }
            (_, None, _) => "Nothing is to be done, and nothing was.".to_owned(),
            (_, Some(place), Some(state)) => next(place, state),
            (_, Some(place), None) => next_of_unknown(place, way),
        },
        effect: state,
        ..decided
    })
}

/// A member, if anything is known of one.
///
/// # Errors
/// The database fails.
pub async fn member(books: &Books, merchant: &str, user: &str) -> Result<Option<MemberDossier>, LedgerError> {
    let state = books.member(merchant, user).await?;
    let states = books.states_of_member(merchant, user).await?;
    if states.is_empty() && state.tier.is_none() && state.entries == 0 {
        return Ok(None);
    }
    let keys: Vec<&str> = states.iter().map(|state| state.effect_key.as_str()).collect();
    let mut announcements = books.noted(&keys).await?;
    announcements.retain(|noted| noted.announced_at.is_none());
    let effects = states
        .into_iter()
        .filter(|state| matches!(state.kind.as_str(), "mission" | "tier") || state.state != "settled")
        .map(|state| Known {
            next: next(place_of(&state), &state),
            state,
        });
    Ok(Some(MemberDossier {
        merchant_id: merchant.to_owned(),
        user_id: user.to_owned(),
        state,
        effects: effects.collect(),
        announcements,
    }))
}

/// Whose fact this is, if it is one of a single row.
fn settler(kind: &str) -> Option<Consumer> {
    match kind {
        "award" => Some(Consumer::Currency),
        "mission_source" => Some(Consumer::Mission),
        "grant" | "referral" => Some(Consumer::Reward),
        "code" => Some(Consumer::Marketplace),
        _ => None,
    }
}

/// Where a fact stands by its own word, without its row.
fn place_of(state: &EffectState) -> Place {
    match state.state.as_str() {
        "pending" => match state.overdue_ms {
            None => Place::Scheduled,
            Some(overdue_ms) if overdue_ms < GRACE_MS => Place::InFlight,
            Some(_) => Place::Overdue,
        },
        "settled" if state.stale_at.is_some() => Place::Stale,
        "settled" => Place::Settled,
        "review" => Place::Review,
        "dead" => Place::Dead,
        _ => Place::Missing,
    }
}

/// What was done, and what comes next and when, in plain sentences.
fn next(place: Place, state: &EffectState) -> String {
    let is_award = state.kind == "award";
    match place {
        Place::Settled => settled(state),
        Place::Scheduled if is_award => {
            let difference = state.target.saturating_sub(state.booked);
            format!("{} are booked at {}.", points(difference), at(state.due_at.as_ref()))
        }
        Place::Scheduled => format!(
            "It takes effect at {}, if it still holds then.",
            at(state.due_at.as_ref())
        ),
        Place::InFlight => ON_ITS_WAY.to_owned(),
        Place::Overdue => {
            let due_at = at(state.due_at.as_ref());
            let sweeper = match &state.next_attempt_at {
                Some(next_attempt_at) => format!("tries again at {next_attempt_at}"),
                None => "takes it next, if it runs".to_owned(),
            };
            format!("It was due at {due_at} and is not settled. The sweeper of the workflows {sweeper}.")
        }
        Place::Missing => missed("Nothing was done about it yet", state),
        Place::Differs => missed("What was done is of an older state of the row", state),
        Place::Stale => missed("Its event was overtaken by a newer state of the row", state),
        Place::Dead => format!(
            "It is in the dead letters ({}). It waits for a replay, or for a change of the row.",
            state.dead_reason.as_deref().unwrap_or("unknown reason")
        ),
        Place::Review => match state.detail.get("review").and_then(Value::as_str) {
            Some(why) => format!("A person must look: {why}."),
            None if is_award => {
                "A person must look: the row is gone, or its member changed after points were booked.".to_owned()
            }
            None => "A person must look: the member is below the tier that they have.".to_owned(),
        },
    }
}

const ON_ITS_WAY: &str = "It is on its way: it is younger than a quarter of an hour.";

fn settled(state: &EffectState) -> String {
    let text = |name: &str| state.detail.get(name).and_then(Value::as_str).unwrap_or("0");
    let settled_at = at(state.settled_at.as_ref());
    match state.kind.as_str() {
        "award" => {
            let less = if state.booked == state.target {
                String::new()
            } else {
                format!(
                    " of a target of {}: the refund policy allows no more",
                    points(state.target)
                )
            };
            let booked = points(state.booked);
            format!("Settled at {settled_at}: {booked} booked{less}. Nothing follows until the row changes.")
        }
        "mission" => match state.detail.get("completed_at").and_then(Value::as_str) {
            Some(completed_at) => format!(
                "Completed at {completed_at}, progress {} of {}.",
                text("progress"),
                text("target")
            ),
            None => format!("Progress {} of {}.", text("progress"), text("target")),
        },
        "tier" => format!("Evaluated at {settled_at}. The next row of the member that counts evaluates it again."),
        _ => format!("Settled at {settled_at}. Nothing follows until the row changes."),
    }
}

fn missed(what: &str, state: &EffectState) -> String {
    let healing = match (&state.missed_since, &state.healed_at) {
        (Some(since), None) => format!("Missed since {since}; it is sent again 15 min after that."),
        (Some(since), Some(healed_at)) if state.heals < 4 => format!(
            "Missed since {since}, sent again {} times, the last time at {healed_at}; again 1 h, 6 h and 24 h after it was first \
             missed.",
            state.heals
        ),
        (Some(since), Some(healed_at)) => {
            format!("Missed since {since} and sent four times, the last time at {healed_at}: a person must look.")
        }
        (None, _) => "The next pass of the reconciler notes it, and sends it again 15 min later.".to_owned(),
    };
    format!("{what}. {healing}")
}

fn at(time: Option<&String>) -> &str {
    time.map_or("an unknown time", String::as_str)
}

fn points(count: i64) -> String {
    if count == 1 {
        "1 point".to_owned()
    } else {
        format!("{count} points")
    }
}

fn next_of_unknown(place: Place, way: Way) -> String {
    match (place, way) {
        (Place::InFlight, _) => ON_ITS_WAY.to_owned(),
        (_, Way::Tiers | Way::Progress) => {
            "Nothing is known of it. The next pass of the reconciler that comes to it evaluates it.".to_owned()
        }
        _ => "Nothing is known of it. The next pass of the reconciler notes it, and sends it again 15 min later."
            .to_owned(),
    }
}

/// What decisions read, and nothing else.
const fn columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::PurchaseLedger => &[
            "id",
            "user_id",
            "merchant_id",
            "final_amount",
            "refunded_amount",
            "status",
            "earn_currency",
            "created_at",
            "completed_at",
        ],
        Table::WalletLedger => &[
            "id",
            "user_id",
            "merchant_id",
            "amount",
            "kind",
            "source_type",
            "source_id",
            "created_at",
        ],
        Table::FormSubmissions => &["id", "form_id", "user_id", "merchant_id", "submitted_at"],
        Table::MissionClaims => &[
            "id",
            "user_id",
            "merchant_id",
            "mission_id",
            "status",
            "period",
            "claimed_at",
        ],
        Table::ReferralLedger => &[
            "id",
            "referrer_user_id",
            "referee_user_id",
            "merchant_id",
            "status",
            "created_at",
        ],
        Table::Codes => &["id", "merchant_id", "status", "user_id", "redeemed_at"],
    }
}
