//! Where the endpoints are served, and whether the console is among them. Without a login, it is for whoever sits at the machine
//! unless somebody says that others shall see it.

use std::net::SocketAddr;

use super::{Flags, Reader, given, shown};
use crate::telemetry::reach::Reach;

impl Reader {
    pub(super) fn http(&mut self, flags: &Flags) -> Option<SocketAddr> {
        match given(flags.http_addr.as_deref()) {
            Some("off") => None,
            Some(address) => self.parsed(Some(address), "HTTP_ADDR", "an address like 127.0.0.1:8080, or off"),
            None => Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
        }
    }

    pub(super) fn console(&mut self, flags: &Flags, http: Option<SocketAddr>) -> Option<Reach> {
        let reach = match given(flags.console.as_deref()) {
            None | Some("0" | "off") => return None,
            Some("1" | "on") => Reach::ThisMachine,
            Some("exposed") => Reach::Everybody,
            Some(other) => {
                self.problems
                    .push(format!("CONSOLE is `{}`: 0, 1 or exposed", shown(other)));
                return None;
            }
        };
        let is_off = given(flags.http_addr.as_deref()) == Some("off");
        self.demand(!is_off, "CONSOLE would be served nowhere: HTTP_ADDR is off");
        if let Some(address) = http {
            self.demand(
                reach == Reach::Everybody || Reach::of(address) == Reach::ThisMachine,
                &format!(
                    "CONSOLE=1 shows the console on this machine alone, and HTTP_ADDR is {address}: CONSOLE=exposed shows it to \
                     whoever reaches that address; or leave it out and call `console --worker`"
                ),
            );
        }
        Some(reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(http_addr: &str, console: &str) -> Result<Option<Reach>, Vec<String>> {
        let some = |text: &str| Some(text.to_owned());
        let flags = Flags {
            http_addr: some(http_addr),
            console: some(console),
            ..Flags::default()
        };
        let mut reader = Reader { problems: Vec::new() };
        let http = reader.http(&flags);
        let reach = reader.console(&flags, http);
        if reader.problems.is_empty() {
            Ok(reach)
        } else {
            Err(reader.problems)
        }
    }

    #[test]
    fn the_console_is_for_this_machine_unless_somebody_says_otherwise() {
        assert_eq!(read("", ""), Ok(None));
        assert_eq!(read("0.0.0.0:80", "0"), Ok(None));
        assert_eq!(read("", "1"), Ok(Some(Reach::ThisMachine)));
        assert_eq!(read("[::1]:80", "1"), Ok(Some(Reach::ThisMachine)));
        assert_eq!(read("0.0.0.0:80", "exposed"), Ok(Some(Reach::Everybody)));
        for (http_addr, console, said) in [
            ("0.0.0.0:80", "1", "CONSOLE=exposed"),
            ("10.0.0.7:80", "1", "10.0.0.7:80"),
            ("off", "1", "HTTP_ADDR is off"),
            ("off", "exposed", "HTTP_ADDR is off"),
            ("", "yes\u{1b}", "0, 1 or exposed"),
        ] {
            let problems = read(http_addr, console).expect_err(console);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(said), "{problems:?}");
        }
    }
}
