//! A PostgreSQL that one test has for itself, to take it away.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio_postgres::NoTls;

use crate::PATIENCE;

pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Server {
    /// Starts it and waits until it answers.
    pub(crate) async fn start() -> Self {
        // Outside of the checkout: PostgreSQL has a user of its own.
        let folder = std::env::temp_dir().join(format!("crm-database-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).expect("ours");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let mut server = Self {
            folder,
            port,
            process: None,
        };
        server.come_back().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://crm:crm@127.0.0.1:{}/postgres", self.port)
    }

    /// On the same port and data, until it answers.
    pub(crate) async fn come_back(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"));
        let log = log.expect("a log file");
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/stack/database"));
        command
            .arg(&self.folder)
            .arg(self.port.to_string())
            .stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.process = Some(command.spawn().expect("the script starts"));
        let answers = async {
            while tokio_postgres::connect(&self.url(), NoTls).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, answers).await.is_err() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            panic!("the server does not answer: {log}");
        }
    }

    /// Tells its clients and ends, as at a restart.
    pub(crate) fn shut_down(&mut self) {
        self.end("INT");
    }

    /// SIGQUIT: at once. It gets no SIGKILL, which would leave its children behind.
    fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            let pid = process.id().to_string();
            let _gone_already = Command::new("kill").args(["-s", signal, &pid]).status();
            let _reaped = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end("QUIT");
        let _left_behind = std::fs::remove_dir_all(&self.folder);
    }
}
