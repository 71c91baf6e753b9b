//! The program file: takes its text, gives [`Programs`] or everything that is wrong with it.
//!
//! A part that cannot be read is reported and left out, so that one mistake does not hide the next. It never accepts a
//! file with a problem.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::document::{Findings, Node, Object};
use super::{
    Activation, CurrencyRule, Metric, Mission, Period, Program, ProgramErrors, Programs, RefundPolicy, Rounding, Tier,
    TierRule, Timing, Trigger, Version, Window,
};
use crate::rows::FormId;

/// Larger numbers are taken for a mistake.
const MOST_RATE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
const MOST_AMOUNT: Decimal = Decimal::from_parts(2_764_472_320, 232_830, 0, false, 0); // 10^15
const MOST_DAYS: u32 = 3660;
const MOST_MONTHS: u32 = 120;
const YEARS: std::ops::RangeInclusive<i16> = 1970..=2200;

pub(super) fn read(text: &str) -> Result<Programs, ProgramErrors> {
    let root = Node::root(text)?;
    let mut findings = Findings::default();
    let mut programs = Programs::default();
    if let Some(mut file) = root.object(&mut findings) {
        let list = file.required("programs", &mut findings);
        for node in list.and_then(|list| list.array(&mut findings)).unwrap_or_default() {
            if let Some((merchant, path, read)) = node
                .object(&mut findings)
                .and_then(|object| program(object, &mut findings))
                && programs.put(&merchant, read).is_some()
            {
                findings.add(
                    &path,
                    format!("`{merchant}` is listed twice"),
                    "keep one program for each merchant",
                );
            }
        }
        file.finish(&mut findings);
    }
    findings.into_result(programs)
}

/// One element of the list, alone, which must be this merchant's.
pub(super) fn read_one(expected: &str, text: &str) -> Result<Program, ProgramErrors> {
    let root = Node::root(text)?;
    let mut findings = Findings::default();
    let read = root
        .object(&mut findings)
        .and_then(|object| program(object, &mut findings));
    let read = read.and_then(|(merchant, path, program)| {
        if merchant == expected {
            return Some(program);
        }
        let wrong = format!("`{merchant}` stands where `{expected}` belongs");
        findings.add(&path, wrong, "name the same merchant inside and outside");
        None
    });
    match findings.into_result(read)? {
        Some(program) => Ok(program),
        // What cannot be read was reported above, so this is never empty-handed.
        None => Err(ProgramErrors { problems: Vec::new() }),
    }
}

/// The merchant as it is written, where that stands, and its program.
fn program(mut object: Object<'_>, findings: &mut Findings) -> Option<(String, String, Program)> {
    let merchant = object.required("merchant_id", findings);
    let merchant = merchant.and_then(|node| Some((node.text(findings)?, node.path)));
    let zone = object
        .required("time_zone", findings)
        .and_then(|node| time_zone(&node, findings));
    let versions_path = format!("{}.versions", object.path);
    let nodes = object
        .required("versions", findings)
        .and_then(|node| node.array(findings));
    if nodes.as_ref().is_some_and(Vec::is_empty) {
        findings.add(&versions_path, "there is no version", "add at least one");
    }
    // With an unknown zone the versions are still read, for their own problems.
    let zone = zone.unwrap_or(TimeZone::UTC);
    let mut versions: Vec<Version> = Vec::new();
    for node in nodes.unwrap_or_default() {
        let path = node.path.clone();
        let Some(version) = node
            .object(findings)
            .and_then(|object| version(object, &zone, findings))
        else {
            continue;
        };
        if let Some(last) = versions.last() {
            if version.rev <= last.rev {
                let wrong = format!("rev {} does not follow rev {}", version.rev, last.rev);
                findings.add(&format!("{path}.rev"), wrong, "number the versions upwards, none twice");
            }
            if version.effective_from <= last.effective_from {
                let wrong = "the version does not begin after the one before it";
                findings.add(
                    &format!("{path}.effective_from"),
                    wrong,
                    "sort the versions, none at the same time",
                );
            }
        }
        versions.push(version);
    }
    object.finish(findings);
    let (merchant, path) = merchant?;
    Some((merchant, path, Program { zone, versions }))
}

fn time_zone(node: &Node<'_>, findings: &mut Findings) -> Option<TimeZone> {
    let name = node.text(findings)?;
    let zone = TimeZone::get(&name);
    if zone.is_err() {
        let remedy = "write an IANA name such as Asia/Bangkok or UTC";
        findings.add(&node.path, format!("`{name}` is not a known time zone"), remedy);
    }
    zone.ok()
}

fn version(mut object: Object<'_>, zone: &TimeZone, findings: &mut Findings) -> Option<Version> {
    let rev = object
        .required("rev", findings)
        .and_then(|node| node.integer(1, 2_000_000_000, findings));
    let from = object.required("effective_from", findings);
    let effective_from = from.and_then(|node| beginning(&node, zone, findings));
    let currency = object.optional("currency");
    let currency = currency
        .and_then(|node| node.object(findings))
        .map(|object| currency_rule(object, findings));
    let tiers = object.optional("tiers");
    let tiers = tiers
        .and_then(|node| node.object(findings))
        .map(|object| tier_rule(object, findings));
    let missions = object.optional("missions").and_then(|node| node.array(findings));
    let missions = read_missions(missions.unwrap_or_default(), findings);
    let policies = [
        ("only_pending", RefundPolicy::OnlyPending),
        ("within_balance", RefundPolicy::WithinBalance),
        ("unlimited", RefundPolicy::Unlimited),
    ];
    let refund_policy = object.required("refund_policy", findings);
    let refund_policy = refund_policy.and_then(|node| node.word(&policies, findings));
    object.finish(findings);
    Some(Version {
        rev: rev?,
        effective_from: effective_from?,
        // A rule that could not be read has been reported; the file is refused as a whole.
        currency: currency.flatten(),
        tiers: tiers.flatten(),
        missions,
        refund_policy: refund_policy?,
    })
}

/// A date in the program's zone, or an instant.
fn beginning(node: &Node<'_>, zone: &TimeZone, findings: &mut Findings) -> Option<Timestamp> {
    let text = node.text(findings)?;
    let start = if text.len() == 10 {
        let date = text.parse::<Date>().ok().filter(|date| YEARS.contains(&date.year()));
        date.and_then(|date| date.to_zoned(zone.clone()).ok())
            .map(|start| start.timestamp())
    } else {
        let instant = text.parse::<Timestamp>().ok();
        instant.filter(|instant| YEARS.contains(&instant.to_zoned(TimeZone::UTC).year()))
    };
    if start.is_none() {
        let wrong = format!("`{text}` is neither a date nor an RFC 3339 time of the years 1970 to 2200");
        findings.add(
            &node.path,
            wrong,
            "write 2026-01-01 (in the program's zone) or 2026-01-01T00:00:00+07:00",
        );
    }
    start
}

fn currency_rule(mut object: Object<'_>, findings: &mut Findings) -> Option<CurrencyRule> {
    let rate = object
        .required("rate", findings)
        .and_then(|node| node.decimal(MOST_RATE, findings));
    let roundings = [
        ("floor", Rounding::Floor),
        ("half_up", Rounding::HalfUp),
        ("half_even", Rounding::HalfEven),
        ("ceil", Rounding::Ceil),
    ];
    let rounding = object
        .required("rounding", findings)
        .and_then(|node| node.word(&roundings, findings));
    let minimum = match object.optional("minimum") {
        Some(node) => node.decimal(MOST_AMOUNT, findings),
        None => Some(Decimal::ZERO),
    };
    let activation = object.required("activation", findings);
    let activation = activation
        .and_then(|node| node.object(findings))
        .and_then(|rule| activation_rule(rule, findings));
    object.finish(findings);
    Some(CurrencyRule {
        rate: rate?,
        rounding: rounding?,
        minimum: minimum?,
        activation: activation?,
    })
}

fn activation_rule(mut object: Object<'_>, findings: &mut Findings) -> Option<Activation> {
    let kinds = [
        ("immediate", 0_u8),
        ("rolling_days", 1),
        ("on", 2),
        ("start_of_next_month", 3),
    ];
    let kind = object
        .required("kind", findings)
        .and_then(|node| node.word(&kinds, findings))?;
    let activation = match kind {
        1 => {
            let days = object
                .required("days", findings)
                .and_then(|node| node.integer(1, MOST_DAYS, findings));
            days.map(Activation::RollingDays)
        }
        2 => object
            .required("date", findings)
            .and_then(|node| day(&node, findings))
            .map(Activation::On),
        3 => Some(Activation::StartOfNextMonth),
        _ => Some(Activation::Immediate),
    };
    object.finish(findings);
    activation
}

fn day(node: &Node<'_>, findings: &mut Findings) -> Option<Date> {
    let text = node.text(findings)?;
    let date = text.parse::<Date>().ok();
    let date = date.filter(|date| text.len() == 10 && YEARS.contains(&date.year()));
    if date.is_none() {
        let wrong = format!("`{text}` is not a date of the years 1970 to 2200");
        findings.add(&node.path, wrong, "write it like 2026-12-24");
    }
    date
}

fn tier_rule(mut object: Object<'_>, findings: &mut Findings) -> Option<TierRule> {
    let ladder_node = object.required("ladder", findings);
    let mut ladder: Vec<Tier> = Vec::new();
    if let Some(node) = ladder_node {
        let steps = node.array(findings).unwrap_or_default();
        if steps.is_empty() {
            findings.add(&node.path, "the ladder has no tier", "add a tier, or leave `tiers` out");
        }
        for step in steps {
            let Some(tier) = step.object(findings).and_then(|object| tier(object, findings)) else {
                continue;
            };
            if ladder.last().is_some_and(|last| tier.threshold <= last.threshold) {
                let wrong = format!("the threshold of `{}` is not above the one before it", tier.name);
                findings.add(&format!("{}.threshold", step.path), wrong, "sort the tiers upwards");
            }
            if ladder.iter().any(|earlier| earlier.name == tier.name) {
                findings.add(&format!("{}.name", step.path), "two tiers have this name", "rename one");
            }
            ladder.push(tier);
        }
    }
    let metrics = [("spend", Metric::Spend), ("points", Metric::Points)];
    let metric = object
        .required("metric", findings)
        .and_then(|node| node.word(&metrics, findings));
    let window = object.required("window", findings);
    let window = window
        .and_then(|node| node.object(findings))
        .and_then(|object| window_rule(object, findings));
    let timings = [
        ("immediate", Timing::Immediate),
        ("start_of_next_month", Timing::StartOfNextMonth),
    ];
    let timing = object
        .required("timing", findings)
        .and_then(|node| node.word(&timings, findings));
    object.finish(findings);
    Some(TierRule {
        ladder,
        metric: metric?,
        window: window?,
        timing: timing?,
    })
}

fn tier(mut object: Object<'_>, findings: &mut Findings) -> Option<Tier> {
    let name = object.required("name", findings).and_then(|node| node.text(findings));
    let threshold = object
        .required("threshold", findings)
        .and_then(|node| node.decimal(MOST_AMOUNT, findings));
    object.finish(findings);
    Some(Tier {
        name: name?.into(),
        threshold: threshold?,
    })
}

fn window_rule(mut object: Object<'_>, findings: &mut Findings) -> Option<Window> {
    let kinds = [("rolling_months", 0_u8), ("calendar_year", 1), ("lifetime", 2)];
    let kind = object
        .required("kind", findings)
        .and_then(|node| node.word(&kinds, findings))?;
    let window = match kind {
        0 => {
            let months = object
                .required("months", findings)
                .and_then(|node| node.integer(1, MOST_MONTHS, findings));
            months.map(Window::RollingMonths)
        }
        1 => Some(Window::CalendarYear),
        _ => Some(Window::Lifetime),
    };
    object.finish(findings);
    window
}

fn read_missions(nodes: Vec<Node<'_>>, findings: &mut Findings) -> Vec<Mission> {
    let mut missions: Vec<Mission> = Vec::new();
    for node in nodes {
        let Some(mission) = node.object(findings).and_then(|object| mission(object, findings)) else {
            continue;
        };
        if missions.iter().any(|earlier| earlier.id == mission.id) {
            findings.add(&format!("{}.id", node.path), "two missions have this id", "rename one");
        }
        missions.push(mission);
    }
    missions
}

fn mission(mut object: Object<'_>, findings: &mut Findings) -> Option<Mission> {
    let id = object.required("id", findings).and_then(|node| node.text(findings));
    let trigger = object.required("trigger", findings);
    let trigger = trigger
        .and_then(|node| node.object(findings))
        .and_then(|object| trigger_rule(object, findings));
    let target_node = object.required("target", findings);
    let target = target_node
        .as_ref()
        .and_then(|node| node.decimal(MOST_AMOUNT, findings));
    if let (Some(node), Some(target)) = (&target_node, target) {
        let counts_rows = trigger
            .as_ref()
            .is_some_and(|trigger| *trigger != Trigger::PurchaseTotal);
        if target.is_zero() || (counts_rows && target.scale() != 0) {
            let remedy = "write an amount above 0, or a whole number of rows from 1";
            findings.add(&node.path, format!("`{target}` cannot be reached as a target"), remedy);
        }
    }
    let periods = [
        ("lifetime", Period::Lifetime),
        ("calendar_day", Period::CalendarDay),
        ("calendar_week", Period::CalendarWeek),
        ("calendar_month", Period::CalendarMonth),
        ("calendar_year", Period::CalendarYear),
    ];
    let period = object
        .required("period", findings)
        .and_then(|node| node.word(&periods, findings));
    object.finish(findings);
    Some(Mission {
        id: id?.into(),
        trigger: trigger?,
        target: target?,
        period: period?,
    })
}

fn trigger_rule(mut object: Object<'_>, findings: &mut Findings) -> Option<Trigger> {
    let kinds = [("purchase_total", 0_u8), ("purchase_count", 1), ("form", 2)];
    let kind = object
        .required("kind", findings)
        .and_then(|node| node.word(&kinds, findings))?;
    let trigger = match kind {
        0 => Some(Trigger::PurchaseTotal),
        1 => Some(Trigger::PurchaseCount),
        _ => {
            let form = object
                .required("form_id", findings)
                .and_then(|node| node.text(findings));
            form.and_then(|form| FormId::new(&form)).map(Trigger::Form)
        }
    };
    object.finish(findings);
    trigger
}
