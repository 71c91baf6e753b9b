//! Who may look at the console, and what he is told, over HTTP as a browser or a stranger's page asks it.

use std::net::SocketAddr;
use std::sync::Arc;

use crm_event_processors::console::{Worker, routes};
use crm_event_processors::telemetry::reach::Reach;
use crm_event_processors::telemetry::{Telemetry, http};
use reqwest::{Client, Response};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::publish_something;

struct Served {
    address: SocketAddr,
    client: Client,
    _until_dropped: DropGuard,
}

impl Served {
    async fn to(reach: Reach) -> Self {
        crm_event_processors::tls::install_provider();
        let telemetry = Arc::new(Telemetry::new().expect("instruments"));
        publish_something(&telemetry);
        let worker = Worker {
            telemetry: Arc::clone(&telemetry),
            config: "the settings".to_owned(),
        };
        let all = http::routes(telemetry, reach).merge(routes(Arc::new(worker), reach));
        let stop = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, _task) = http::serve(any, all, stop.clone()).await.expect("bound");
        Self {
            address,
            client: Client::new(),
            _until_dropped: stop.drop_guard(),
        }
    }

    async fn get(&self, path: &str, host: Option<&str>) -> Response {
        let mut request = self.client.get(format!("http://{}{path}", self.address));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.send().await.expect("an answer")
    }
}

const PATHS: [&str; 4] = [
    "/console",
    "/console/data.json",
    "/console/letters.json",
    "/console/letter.json?place=tier/0/0",
];

#[tokio::test]
async fn a_console_is_no_page_of_whoever_makes_a_name_lead_to_this_machine() {
    let served = Served::to(Reach::ThisMachine).await;
    for path in PATHS {
        let led_here = served.get(path, Some("evil.example")).await;
        assert_eq!(led_here.status(), 421, "{path}");
        assert!(!led_here.text().await.expect("text").contains("settings"), "{path}");
    }
    let port = served.address.port();
    for host in [None, Some(format!("localhost:{port}")), Some(format!("[::1]:{port}"))] {
        let page = served.get("/console", host.as_deref()).await;
        assert_eq!(page.status(), 200, "{host:?}");
    }
    let exposed = Served::to(Reach::Everybody).await;
    let page = exposed.get("/console", Some("console.example")).await;
    assert_eq!(page.status(), 200, "somebody wanted it so");
}

#[tokio::test]
async fn the_console_can_only_be_looked_at_and_nothing_of_it_is_kept() {
    let served = Served::to(Reach::ThisMachine).await;
    for path in PATHS {
        let url = format!("http://{}{path}", served.address);
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let method = method.parse().expect("a method");
            let answer = served.client.request(method, &url).send().await.expect("an answer");
            assert_eq!(answer.status(), 405, "{path}");
        }
        let answer = served.get(path, None).await;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert_eq!(header("access-control-allow-origin"), None, "{path}");
    }
    // Under the address with a slash it is found as well.
    assert_eq!(served.get("/console/", None).await.status(), 200);
    // What probes and scrapers ask for is there for whoever asks under whatever name; what is said of single records is not.
    for (path, status) in [("/livez", 200), ("/metrics", 200), ("/statusz", 421)] {
        let answer = served.get(path, Some("worker.internal")).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    let exposed = Served::to(Reach::Everybody).await;
    assert_eq!(exposed.get("/statusz", Some("worker.internal")).await.status(), 200);
}

#[tokio::test]
async fn a_worker_tells_what_statusz_says_and_its_settings_and_reads_no_dead_letters() {
    let served = Served::to(Reach::ThisMachine).await;
    let json = async |path: &str| -> (u16, Value) {
        let answer = served.get(path, None).await;
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).expect("JSON"))
    };
    let (status, told) = json("/console/data.json").await;
    assert_eq!(status, 200);
    assert_eq!(told["config"], "the settings");
    assert_eq!(told["has_letters"], false);
    assert_eq!(told["consumers"].as_array().map(Vec::len), Some(2), "{told}");
    let (status, told) = json("/console/letters.json").await;
    assert_eq!(status, 502);
    assert!(
        told["error"].as_str().is_some_and(|why| why.contains("console")),
        "{told}"
    );
    for wrong in [
        "/console/letters.json?queue=nobody",
        "/console/letter.json",
        "/console/letter.json?place=x",
    ] {
        assert_eq!(json(wrong).await.0, 400, "{wrong}");
    }
}
