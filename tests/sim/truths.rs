//! The programs as they truly are, at three times: a merchant comes, then a version.

use std::sync::Arc;

use crm_event_processors::consumers::Rules;
use crm_event_processors::loyalty::Programs;
use serde_json::{Value, json};

pub(super) struct Truths {
    pub(super) first: Arc<Rules>,
    /// With a merchant that was not there before.
    pub(super) with_late: Arc<Rules>,
    /// With a version of the first merchant that begins an hour after the start.
    pub(super) revised: Arc<Rules>,
}

impl Truths {
    pub(super) fn read() -> Arc<Self> {
        let mut document: Value = serde_json::from_str(include_str!("programs.json")).expect("JSON");
        let first = rules(&document);
        let mut late = document["programs"][0].clone();
        late["merchant_id"] = json!("m-late");
        document["programs"].as_array_mut().expect("a list").push(late);
        let with_late = rules(&document);
        let mut revised = document["programs"][0]["versions"][0].clone();
        revised["rev"] = json!(2);
        revised["effective_from"] = json!("2026-11-20T13:00:00Z");
        revised["currency"]["rate"] = json!("3");
        document["programs"][0]["versions"]
            .as_array_mut()
            .expect("a list")
            .push(revised);
        Arc::new(Self {
            first,
            with_late,
            revised: rules(&document),
        })
    }
}

fn rules(document: &Value) -> Arc<Rules> {
    let programs = Programs::from_json(&document.to_string()).expect("valid programs");
    Arc::new(Rules {
        database: true,
        ..Rules::new(Arc::new(programs), None)
    })
}
