use super::*;

fn client(base_url: &str) -> Result<Client, ConnectError> {
    Client::new(Access {
        platform: Platform::KafkaConnect,
        base_url: base_url.to_owned(),
        key: Some(("key".to_owned(), "sentinel-1".to_owned())),
        patience: Duration::ZERO,
    })
}

#[test]
fn the_place_that_a_connector_has_stored_is_the_furthest_that_it_names() {
    for (body, wanted) in [
        (r#"{"offsets": []}"#, None),
        (
            r#"{"offsets": [{"partition": {"server": "crm"}, "offset": null}]}"#,
            None,
        ),
        (
            r#"{"offsets": [{"offset": {"lsn": 7, "lsn_proc": 9, "lsn_commit": 8, "txId": 99}}]}"#,
            Some(9),
        ),
    ] {
        let stored: Stored = serde_json::from_str(body).expect("understood");
        assert_eq!(stored.position(), wanted, "{body}");
    }
}

#[test]
fn a_name_cannot_change_the_rest_of_the_address() {
    let client = client("http://connect.example:8083/base/").expect("an address");
    let url = |path: &[&str]| client.url(path).expect("an address").to_string();
    assert_eq!(
        url(&["connectors", "a/../b?c", "config"]),
        "http://connect.example:8083/base/connectors/a%2F..%2Fb%3Fc/config"
    );
    assert_eq!(
        url(&["connectors", "c", "restart?onlyFailed=true"]),
        "http://connect.example:8083/base/connectors/c/restart?onlyFailed=true"
    );
    assert!(!format!("{client:?}").contains("sentinel"));
}

#[test]
fn an_address_that_cannot_be_meant_is_refused() {
    for base in [
        "",
        "connect:8083",
        "ftp://x",
        "https://user:pw@x",
        "https://x/?a=b",
        "data:x",
    ] {
        assert_eq!(client(base).err(), Some(ConnectError::Address), "{base}");
    }
}

#[test]
fn what_went_wrong_is_told_in_whatever_shape_it_comes() {
    let table: [(&str, &str); 6] = [
        (
            r#"{"error_code": 400, "message": "invalid:\n\nA value is required\nmore\nand more"}"#,
            "invalid: A value is required more",
        ),
        (r#"{"error": {"code": 401, "message": "Unauthorized"}}"#, "Unauthorized"),
        (r#"{"error": null}"#, r#"{"error": null}"#),
        ("<html>\n502 sentinel-1\n</html>", "<html> 502 *** </html>"),
        ("", "no reason given"),
        ("\u{1b}[2J", "\\u001b[2J"),
    ];
    for (body, wanted) in table {
        assert_eq!(detail(body.as_bytes(), &["sentinel-1"]), wanted, "{body}");
    }
}
