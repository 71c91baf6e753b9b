//! What a program file may say, and how its mistakes are told.

use insta::assert_snapshot;
use jiff::Timestamp;
use rust_decimal::Decimal;

use super::*;
use crate::rows::MerchantId;

fn version(rev: u32, from: &str) -> String {
    format!(r#"{{"rev":{rev},"effective_from":"{from}","refund_policy":"unlimited"}}"#)
}

fn program(merchant: &str, zone: &str, versions: &[String]) -> String {
    let versions = versions.join(",");
    format!(r#"{{"merchant_id":"{merchant}","time_zone":"{zone}","versions":[{versions}]}}"#)
}

fn file(programs: &[String]) -> String {
    format!(r#"{{"programs":[{}]}}"#, programs.join(","))
}

fn problems(text: &str) -> String {
    Programs::from_json(text).expect_err("a file with problems").to_string()
}

fn rev_at(programs: &Programs, merchant: &str, at: &str) -> String {
    let at: Timestamp = at.parse().expect("a timestamp");
    match programs.version_at(&MerchantId::new(merchant).expect("not empty"), at) {
        Lookup::Found(version, _) => format!("rev {}", version.rev),
        Lookup::NoProgram => "no program".to_owned(),
        Lookup::NoVersionYet => "no version yet".to_owned(),
    }
}

#[test]
fn the_version_in_force_begins_at_local_midnight_and_ends_where_the_next_begins() {
    let versions = [version(3, "2026-01-01"), version(5, "2026-06-01T00:00:00+02:00")];
    let programs = Programs::from_json(&file(&[program("m", "Asia/Bangkok", &versions)])).expect("valid");
    assert_eq!(rev_at(&programs, "m", "2025-12-31T16:59:59.999Z"), "no version yet");
    assert_eq!(rev_at(&programs, "m", "2025-12-31T17:00:00Z"), "rev 3");
    assert_eq!(rev_at(&programs, "m", "2026-05-31T21:59:59Z"), "rev 3");
    assert_eq!(rev_at(&programs, "m", "2026-05-31T22:00:00Z"), "rev 5");
    assert_eq!(rev_at(&programs, "other", "2026-05-31T22:00:00Z"), "no program");
}

#[test]
fn the_default_serves_only_merchants_that_are_not_listed() {
    let all = program("*", "UTC", &[version(1, "2020-01-01")]);
    let one = program("m", "UTC", &[version(9, "2026-01-01")]);
    let programs = Programs::from_json(&file(&[all, one])).expect("valid");
    assert_eq!(rev_at(&programs, "m", "2026-01-01T00:00:00Z"), "rev 9");
    assert_eq!(rev_at(&programs, "m", "2025-01-01T00:00:00Z"), "no version yet");
    assert_eq!(rev_at(&programs, "other", "2025-01-01T00:00:00Z"), "rev 1");
    assert_eq!(programs.merchants(), 1);
}

#[test]
fn programs_are_put_together_merchant_by_merchant_and_a_bad_one_changes_nothing() {
    let mut programs = Programs::default();
    let mut put = |merchant: &str, text: &str| programs.put_json(merchant, text).map_err(|error| error.to_string());
    assert_eq!(put("m", &program("m", "UTC", &[version(1, "2020-01-01")])), Ok(()));
    assert_eq!(put("*", &program("*", "UTC", &[version(2, "2020-01-01")])), Ok(()));
    let bad = put("m", &program("m", "Mars", &[version(3, "2020-01-01")]));
    assert_snapshot!(bad.expect_err("no such zone"), @"time_zone: `Mars` is not a known time zone; write an IANA name such as Asia/Bangkok or UTC");
    let other = put("m", &program("n", "UTC", &[version(3, "2020-01-01")]));
    assert_snapshot!(other.expect_err("another one's"), @"merchant_id: `n` stands where `m` belongs; name the same merchant inside and outside");
    assert!(put("m", "[]").is_err_and(|text| !text.is_empty()));
    assert_eq!(put("k", &program("k", "UTC", &[version(4, "2020-01-01")])), Ok(()));
    assert_eq!(rev_at(&programs, "m", "2026-01-01T00:00:00Z"), "rev 1");
    assert_eq!(rev_at(&programs, "n", "2026-01-01T00:00:00Z"), "rev 2");
    assert_eq!(rev_at(&programs, "k", "2026-01-01T00:00:00Z"), "rev 4");
}

#[test]
fn a_syntax_error_names_line_and_column() {
    assert_snapshot!(problems("{\n  \"programs\": [\n    {,\n"), @r#"line 3, column 6: not JSON: key must be a string at line 3 column 6; mend the syntax there"#);
    assert_snapshot!(problems(""), @r#"line 1, column 0: not JSON: EOF while parsing a value at line 1 column 0; mend the syntax there"#);
}

#[test]
fn all_problems_are_told_at_once_with_path_and_remedy() {
    let text = r#"{
      "programms": [],
      "programs": [
        {"merchant_id": "", "time_zone": "Mars/Olympus", "versions": []},
        {"merchant_id": "m", "time_zone": "UTC", "extra": 1, "versions": [
          {"rev": 2, "effective_from": "2026-02-30", "refund_policy": "never",
           "currency": {"rate": -1, "rounding": "up", "minimum": 1e3, "activation": {"kind": "rolling_days", "days": 0}}},
          {"rev": 0, "effective_from": "1969-01-01", "refund_policy": null,
           "currency": {"rate": "1000001", "rounding": "floor", "activation": {"kind": "on", "date": "soon"}}}
        ]},
        {"merchant_id": "t", "time_zone": "UTC", "versions": [
          {"rev": 1, "effective_from": "2026-01-01", "refund_policy": "unlimited", "rev": 1,
           "tiers": {"ladder": [{"name": "a", "threshold": 5}, {"name": "a", "threshold": "5"}, {"name": " ", "threshold": 0.1234567890123}],
                     "metric": "visits", "window": {"kind": "rolling_months", "months": 1.5}, "timing": "immediate"},
           "missions": [
             {"id": "x", "trigger": {"kind": "form", "form_id": ""}, "target": 1, "period": "decade"},
             {"id": "y", "trigger": {"kind": "purchase_count"}, "target": 1.5, "period": "lifetime"},
             {"id": "y", "trigger": {"kind": "purchase_total", "form_id": "f"}, "target": 0, "period": "lifetime"}]},
          {"rev": 1, "effective_from": "2026-01-01", "refund_policy": "unlimited", "tiers": {"ladder": []}}
        ]},
        {"merchant_id": "t", "time_zone": "UTC", "versions": [{"rev": 1, "effective_from": "2026-01-01", "refund_policy": "unlimited"}]},
        7
      ]
    }"#;
    assert_snapshot!(problems(text), @r#"
programs[0].merchant_id: `""` is not understood; write a text that is not empty
programs[0].time_zone: `Mars/Olympus` is not a known time zone; write an IANA name such as Asia/Bangkok or UTC
programs[0].versions: there is no version; add at least one
programs[1].versions[0].effective_from: `2026-02-30` is neither a date nor an RFC 3339 time of the years 1970 to 2200; write 2026-01-01 (in the program's zone) or 2026-01-01T00:00:00+07:00
programs[1].versions[0].currency.rate: `-1` is not understood; write a decimal from 0 to 1000000 with at most 12 decimals and no exponent
programs[1].versions[0].currency.rounding: `"up"` is not understood; write one of floor, half_up, half_even, ceil
programs[1].versions[0].currency.minimum: `1e3` is not understood; write a decimal from 0 to 1000000000000000 with at most 12 decimals and no exponent
programs[1].versions[0].currency.activation.days: `0` is not understood; write a whole number from 1 to 3660
programs[1].versions[0].refund_policy: `"never"` is not understood; write one of only_pending, within_balance, unlimited
programs[1].versions[1].rev: `0` is not understood; write a whole number from 1 to 2000000000
programs[1].versions[1].effective_from: `1969-01-01` is neither a date nor an RFC 3339 time of the years 1970 to 2200; write 2026-01-01 (in the program's zone) or 2026-01-01T00:00:00+07:00
programs[1].versions[1].currency.rate: `"1000001"` is not understood; write a decimal from 0 to 1000000 with at most 12 decimals and no exponent
programs[1].versions[1].currency.activation.date: `soon` is not a date of the years 1970 to 2200; write it like 2026-12-24
programs[1].versions[1].refund_policy: the field is missing; add it
programs[1].extra: unknown field; remove it or mend its name; known here: merchant_id, time_zone, versions
programs[2].versions[0].rev: the field is given twice; keep one of them
programs[2].versions[0].tiers.ladder[1].threshold: the threshold of `a` is not above the one before it; sort the tiers upwards
programs[2].versions[0].tiers.ladder[1].name: two tiers have this name; rename one
programs[2].versions[0].tiers.ladder[2].name: `" "` is not understood; write a text that is not empty
programs[2].versions[0].tiers.ladder[2].threshold: `0.1234567890123` is not understood; write a decimal from 0 to 1000000000000000 with at most 12 decimals and no exponent
programs[2].versions[0].tiers.metric: `"visits"` is not understood; write one of spend, points
programs[2].versions[0].tiers.window.months: `1.5` is not understood; write a whole number from 1 to 120
programs[2].versions[0].missions[0].trigger.form_id: `""` is not understood; write a text that is not empty
programs[2].versions[0].missions[0].period: `"decade"` is not understood; write one of lifetime, calendar_day, calendar_week, calendar_month, calendar_year
programs[2].versions[0].missions[1].target: `1.5` cannot be reached as a target; write an amount above 0, or a whole number of rows from 1
programs[2].versions[0].missions[2].trigger.form_id: unknown field; remove it or mend its name; known here: kind
programs[2].versions[0].missions[2].target: `0` cannot be reached as a target; write an amount above 0, or a whole number of rows from 1
programs[2].versions[0].missions[2].id: two missions have this id; rename one
programs[2].versions[1].tiers.ladder: the ladder has no tier; add a tier, or leave `tiers` out
programs[2].versions[1].tiers.metric: the field is missing; add it
programs[2].versions[1].tiers.window: the field is missing; add it
programs[2].versions[1].tiers.timing: the field is missing; add it
programs[2].versions[1].rev: rev 1 does not follow rev 1; number the versions upwards, none twice
programs[2].versions[1].effective_from: the version does not begin after the one before it; sort the versions, none at the same time
programs[3].merchant_id: `t` is listed twice; keep one program for each merchant
programs[4]: `7` is not understood; write an object
programms: unknown field; remove it or mend its name; known here: programs
"#);
}

// Edge case 15: decimals may be texts or numbers; never a float.
#[test]
fn decimals_are_taken_from_their_digits_whether_text_or_number() {
    for written in ["0.1", "\"0.1\"", "0.100000000000", "\"0.10\""] {
        let text = format!(
            r#"{{"programs":[{{"merchant_id":"m","time_zone":"UTC","versions":[{{"rev":1,"effective_from":"2026-01-01",
            "refund_policy":"unlimited","currency":{{"rate":{written},"rounding":"floor","activation":{{"kind":"immediate"}}}}}}]}}]}}"#
        );
        let programs = Programs::from_json(&text).expect("valid");
        let merchant = MerchantId::new("m").expect("not empty");
        let at = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let Lookup::Found(version, _) = programs.version_at(&merchant, at) else {
            panic!("not found");
        };
        assert_eq!(
            version.currency.as_ref().map(|rule| rule.rate),
            Some(Decimal::new(1, 1)),
            "{written}"
        );
    }
}

#[test]
fn the_demo_program_has_every_activation_and_decides_any_merchant() {
    let programs = Programs::from_json(DEMO_PROGRAM).expect("valid");
    let at = "2026-11-20T10:00:00Z".parse().expect("a timestamp");
    let activation = |merchant: &str| {
        let Lookup::Found(version, _) = programs.version_at(&MerchantId::new(merchant).expect("not empty"), at) else {
            panic!("{merchant} has no version");
        };
        version.currency.as_ref().map(|rule| rule.activation)
    };
    assert_eq!(activation("anyone"), Some(Activation::Immediate));
    assert_eq!(activation("m-instant"), Some(Activation::Immediate));
    assert_eq!(activation("m-rolling"), Some(Activation::RollingDays(14)));
    assert_eq!(
        activation("m-date"),
        Some(Activation::On("2027-01-15".parse().expect("a date")))
    );
    assert_eq!(activation("m-month"), Some(Activation::StartOfNextMonth));
}
