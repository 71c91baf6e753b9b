//! How far a replay has come, kept in a file so that another run goes on from there.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::Usage;
use crate::kafka::Part;

/// The file of `--resume`. What is before `from` is finished.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Position {
    /// What was asked for: another question is not gone on with.
    pub(super) asked: Asked,
    pub(super) parts: Vec<PartPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Asked {
    pub(super) consumer: String,
    pub(super) prefix: String,
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) from: String,
    pub(super) to: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct PartPosition {
    pub(super) topic: String,
    pub(super) spans: Vec<crate::kafka::Span>,
}

impl Position {
    /// What the file holds of an earlier run of the same question; `None` if there is no file.
    pub(super) fn load(path: &Path, asked: &Asked) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Usage(format!("--resume {}: {error}", path.display())).into()),
        };
        let position: Self = serde_json::from_str(&text)
            .map_err(|error| Usage(format!("--resume {} holds no position: {error}", path.display())))?;
        if position.asked != *asked {
            let problem = format!(
                "--resume {} belongs to another replay: give what was given then, or another file",
                path.display()
            );
            return Err(Usage(problem).into());
        }
        Ok(Some(position))
    }

    /// Whole, or not at all.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let mut beside = PathBuf::from(path).into_os_string();
        beside.push(".new");
        let text = serde_json::to_string_pretty(self).context("the position")?;
        let written = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, path));
        written.with_context(|| format!("--resume {}", path.display()))
    }

    pub(super) fn parts(&self) -> Vec<Part> {
        let part = |part: &PartPosition| Part {
            topic: part.topic.clone(),
            spans: part.spans.clone(),
        };
        self.parts.iter().map(part).collect()
    }

    /// How many offsets are left.
    pub(super) fn left(&self) -> u64 {
        let spans = self.parts.iter().flat_map(|part| &part.spans);
        spans
            .map(|span| u64::try_from(span.to.saturating_sub(span.from)).unwrap_or(0))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::Span;

    #[test]
    fn a_position_goes_on_with_its_own_question_only() {
        let folder = std::env::temp_dir().join(format!("crm-position-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("replay.json");
        let asked = Asked {
            consumer: "currency".to_owned(),
            prefix: "crm".to_owned(),
            topic: None,
            partition: Some(1),
            from: "7".to_owned(),
            to: None,
        };
        assert_eq!(Position::load(&path, &asked).expect("no file is no problem"), None);
        let span = Span {
            partition: 1,
            from: 9,
            to: 12,
        };
        let position = Position {
            asked: asked.clone(),
            parts: vec![PartPosition {
                topic: "crm.public.purchase_ledger".to_owned(),
                spans: vec![span],
            }],
        };
        position.save(&path).expect("written");
        assert_eq!(Position::load(&path, &asked).expect("read"), Some(position.clone()));
        assert_eq!(position.left(), 3);
        let other = Asked {
            consumer: "tier".to_owned(),
            ..asked.clone()
        };
        let refused = Position::load(&path, &other).expect_err("another question");
        assert!(refused.is::<Usage>(), "{refused}");
        std::fs::write(&path, "{").expect("written");
        assert!(Position::load(&path, &asked).expect_err("no position").is::<Usage>());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
