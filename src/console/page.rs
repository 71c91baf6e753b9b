//! The page as it is sent: markup, style and script in one, and the policy that lets nothing else in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const MARKUP: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(super) struct Page {
    pub(super) text: String,
    pub(super) policy: String,
}

impl Page {
    pub(super) fn new() -> Self {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        // Named by their hashes: nothing that is put into the page by whatever trick can run or paint. Data come from where the
        // page came from and from nowhere else, and no text can become markup (trusted types without any).
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let text = MARKUP.replacen("/*style*/", STYLE, 1).replacen("/*script*/", SCRIPT, 1);
        Self { text, policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_small_file_that_names_nobody_outside() {
        let page = Page::new();
        assert!(page.text.len() < 200 * 1024, "{} bytes", page.text.len());
        assert!(page.text.contains(STYLE) && page.text.contains(SCRIPT));
        // But for the name of a namespace, which nobody fetches.
        let outside = page.text.replace("http://www.w3.org/2000/svg", "");
        for form in ["http://", "https://", "url(", "@import", "src=\"", "<iframe", "<object"] {
            assert!(!outside.contains(form), "{form}");
        }
    }

    #[test]
    fn the_script_makes_no_markup_of_a_text() {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "DOMParser",
            "srcdoc",
        ] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
        for way in ["onclick=", "style=", "javascript:"] {
            assert!(!MARKUP.contains(way), "{way}");
        }
    }
}
