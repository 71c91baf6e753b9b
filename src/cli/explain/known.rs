//! An id explained: takes a row's id or a member, asks the database, prints what is decided, what was done and what follows.

use std::io::{self, Write};

use super::super::reconcile::open;
use super::super::{Code, Format, Usage};
use super::Options;
use crate::clock::{Clock as _, SystemClock};
use crate::config::{Flags, Reconciling};
use crate::inert::clean;
use crate::postgres::Noted;
use crate::reconcile::dossier::{self, Asked, Decided, MemberDossier, RowDossier};
use crate::rows::Table;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Row(Vec<Table>, String),
    Member(String, String),
    /// A row's id, or a member.
    Anything(String),
}

#[derive(Debug, serde::Serialize)]
struct Answer {
    rows: Vec<RowDossier>,
    members: Vec<MemberDossier>,
}

impl Subject {
    pub(super) fn of(options: &Options) -> Result<Option<Self>, Usage> {
        let row = |table, id: &Option<String>| id.clone().map(|id| Self::Row(vec![table], id));
        let member = options.member.as_deref().map(|text| {
            let (merchant, user) = member(text).ok_or_else(|| Usage("--member is MERCHANT:USER".to_owned()))?;
            Ok(Self::Member(merchant, user))
        });
        let given = row(Table::PurchaseLedger, &options.purchase)
            .or_else(|| row(Table::MissionClaims, &options.claim))
            .or_else(|| row(Table::ReferralLedger, &options.referral))
            .or_else(|| row(Table::Codes, &options.code));
        match (given, member) {
            (Some(given), _) => return Ok(Some(given)),
            (None, Some(member)) => return member.map(Some),
            (None, None) => {}
        }
        // A file of that name is a file: ids seldom are names of files, and recordings always are.
        let has_database = options
            .database_url
            .as_deref()
            .is_some_and(|url| !url.trim().is_empty());
        let guess = options.file.as_deref().filter(|path| has_database && !path.exists());
        let id = guess.and_then(|path| path.to_str()).filter(|id| *id != "-");
        Ok(id.map(|id| Self::Anything(id.to_owned())))
    }
}

/// `MERCHANT:USER`, escaped as in effect keys.
fn member(text: &str) -> Option<(String, String)> {
    let plain = |part: &str| part.replace("%3A", ":").replace("%25", "%");
    let (merchant, user) = text
        .split_once(':')
        .filter(|(merchant, user)| !merchant.is_empty() && !user.is_empty())?;
    Some((plain(merchant), plain(user)))
}

pub(super) fn run(options: &Options, subject: &Subject) -> anyhow::Result<Code> {
    let flags = Flags {
        database_url: options.database_url.clone(),
        program_file: options.program_file.clone(),
        consumers: options.consumers.clone(),
        ..Flags::default()
    };
    let settings = Reconciling::from_flags(&flags, false)?;
    let now = options.now.unwrap_or_else(|| SystemClock.now());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let (books, ledger, rules) = open(&settings).await?;
        let rules = rules.current();
        let (tables, id, member) = match subject {
            Subject::Row(tables, id) => (tables.as_slice(), id.as_str(), None),
            Subject::Member(merchant, user) => (&[][..], "", Some((merchant.clone(), user.clone()))),
            Subject::Anything(id) => (&Table::ALL[..], id.as_str(), member(id)),
        };
        let asked = Asked {
            books: &books,
            ledger: &*ledger,
            rules: &rules,
            consumers: &settings.consumers,
            now,
        };
        let rows = dossier::rows(&asked, tables, id).await?;
        let mut members = Vec::new();
        if let Some((merchant, user)) = member {
            members.extend(dossier::member(&books, &merchant, &user).await?);
        }
        anyhow::Ok(Answer { rows, members })
    })?;
    let mut out = io::stdout().lock();
    match options.format {
        Format::Json => writeln!(out, "{}", clean(&serde_json::to_string(&answer)?))?,
        Format::Text => write(&mut out, &answer)?,
    }
    if answer.rows.is_empty() && answer.members.is_empty() {
        return Ok(Code::Findings);
    }
    Ok(Code::Ok)
}

fn write(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    if answer.rows.is_empty() && answer.members.is_empty() {
        return writeln!(
            out,
            "Nothing of that name is in the ledgers, and nothing is known of such a member."
        );
    }
    for row in &answer.rows {
        writeln!(out, "{} {}", row.table, clean(&row.id))?;
        for (name, value) in &row.row {
            let text = serde_json::from_str::<String>(value.get());
            writeln!(out, "  {name:<17}{}", clean(text.as_deref().unwrap_or(value.get())))?;
        }
        if let Some(problem) = &row.unreadable {
            writeln!(
                out,
                "\n  It cannot be read: {}. Its record is in the dead letters.",
                clean(problem)
            )?;
        }
        for decided in &row.decisions {
            writeln!(out)?;
            write_decided(out, decided)?;
        }
        writeln!(out)?;
    }
    for member in &answer.members {
        write_member(out, member)?;
    }
    Ok(())
}

fn write_decided(out: &mut impl Write, decided: &Decided) -> io::Result<()> {
    writeln!(
        out,
        "  {:<12}{:<8} {}",
        decided.consumer, decided.decision, decided.reason
    )?;
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "    {name:<12}{}", clean(value)),
        None => Ok(()),
    };
    line("effect", decided.effect_key.as_deref())?;
    line("event id", decided.event_id.as_deref())?;
    line("target", decided.target.map(|target| target.to_string()).as_deref())?;
    line("due", decided.due_at.as_deref())?;
    line("stands", decided.place)?;
    if let Some(effect) = &decided.effect {
        let text = format!(
            "{}, target {}, booked {}, rules {}",
            effect.state, effect.target, effect.booked, effect.program_rev
        );
        line("in effects", Some(&text))?;
    }
    for noted in &decided.announcements {
        line("announced", Some(&told(noted)))?;
    }
    writeln!(out, "    {}", clean(&decided.next))
}

fn write_member(out: &mut impl Write, member: &MemberDossier) -> io::Result<()> {
    writeln!(
        out,
        "member {} of merchant {}",
        clean(&member.user_id),
        clean(&member.merchant_id)
    )?;
    let (balance, entries) = (member.state.balance, member.state.entries);
    writeln!(out, "  {balance} points in the wallet, {entries} entries")?;
    let text = |value: &serde_json::Value, name: &str| value.get(name).and_then(serde_json::Value::as_str).map(clean);
    match &member.state.tier {
        Some(state) => {
            let tier = text(state, "tier").unwrap_or_else(|| "none".to_owned());
            write!(out, "  tier {tier}")?;
            for (name, words) in [
                ("since", "since"),
                ("value", "value at the last evaluation"),
                ("scheduled_tier", "scheduled"),
                ("review_since", "review asked for since"),
            ] {
                if let Some(value) = text(state, name) {
                    write!(out, ", {words} {value}")?;
                }
            }
            writeln!(out)?;
        }
        None => writeln!(out, "  no tier yet")?,
    }
    for past in &member.state.history {
        let of = |name| text(past, name).unwrap_or_else(|| "none".to_owned());
        writeln!(
            out,
            "    {}: {} after {}, with {}",
            of("upgraded_at"),
            of("tier"),
            of("previous_tier"),
            of("value")
        )?;
    }
    for known in &member.effects {
        writeln!(out, "  {} ({})", clean(&known.state.effect_key), known.state.state)?;
        writeln!(out, "    {}", clean(&known.next))?;
    }
    for noted in &member.announcements {
        writeln!(out, "  announced: {}", clean(&told(noted)))?;
    }
    Ok(())
}

/// What became of an announcement.
fn told(noted: &Noted) -> String {
    let sent = match (&noted.announced_at, &noted.dead_reason) {
        (Some(at), _) => format!("sent at {at}"),
        (None, Some(reason)) => format!("rejected, and never sent: {reason}"),
        (None, None) => format!("written at {}, not sent yet", noted.created_at),
    };
    format!("{} {}, {sent}", noted.name, noted.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_a_merchant_and_a_user_as_effect_keys_have_them() {
        assert_eq!(member("m%3A1:u%25"), Some(("m:1".to_owned(), "u%".to_owned())));
        assert_eq!(member("m"), None);
        assert_eq!(member(":u"), None);
    }
}
