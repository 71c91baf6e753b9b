//! A Redis of the test's own, which it may fill, lock and kill.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use redis::{AsyncConnectionConfig, Value};

use crate::PATIENCE;

/// Ends with the test.
pub(crate) struct Server {
    port: u16,
    arguments: Vec<String>,
    child: Child,
    /// Shared by every call of [`Server::ask`].
    connection: tokio::sync::OnceCell<redis::aio::MultiplexedConnection>,
}

impl Server {
    /// Starts a server on a free port and waits until it says that it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(|_port| arguments.iter().map(|&argument| argument.to_owned()).collect()).0
    }

    /// The same with arguments that name a free port beside the server's own; gives that port as well. Somebody else may have
    /// taken either meanwhile: then with others.
    pub(crate) fn start_with(arguments: impl Fn(u16) -> Vec<String>) -> (Self, u16) {
        let start = || {
            let [port, beside] = free_ports();
            let arguments = arguments(beside);
            let server = Self {
                port,
                child: spawn(port, &arguments)?,
                arguments,
                connection: tokio::sync::OnceCell::new(),
            };
            Some((server, beside))
        };
        let started = std::iter::repeat_with(start).take(5).flatten().next();
        started.expect("redis-server ends before it is ready, on every port")
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// With `user:password`.
    pub(crate) fn url_with(&self, account: &str) -> String {
        format!("redis://{account}@127.0.0.1:{}", self.port)
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }

    /// On the same port, without the keys.
    pub(super) fn restart(&mut self) {
        self.child = spawn(self.port, &self.arguments).expect("redis-server ended before it was ready");
    }

    /// One command as text, past the code under test.
    pub(super) async fn ask(&self, command: &[&str]) -> String {
        let connect = async || {
            let client = redis::Client::open(self.url()).expect("an address");
            let patient = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE));
            let connecting = client.get_multiplexed_async_connection_with_config(&patient);
            connecting.await.expect("connects")
        };
        let mut connection = self.connection.get_or_init(connect).await.clone();
        let mut asked = redis::cmd(command[0]);
        let reply: Value = asked
            .arg(&command[1..])
            .query_async(&mut connection)
            .await
            .expect("a reply");
        match reply {
            Value::BulkString(text) => String::from_utf8(text).expect("text"),
            Value::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test already.
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Different ones, and nobody's at this moment.
fn free_ports() -> [u16; 2] {
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    free.map(|free| free.local_addr().expect("an address").port())
}

/// Nothing, if it ends before it is ready.
fn spawn(port: u16, arguments: &[String]) -> Option<Child> {
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(std::env::temp_dir())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server (7.0 or newer) must be installed");
    let stdout = child.stdout.take().expect("piped");
    let mut lines = BufReader::new(stdout).lines();
    let ready = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("eady to accept connections"));
    if !ready {
        child.wait().expect("ends");
        return None;
    }
    // Read on, or it would block on a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some(child)
}
