//! Claims, referrals and codes of the workload: rows that go through a few states and earn at most one thing.
//!
//! What must come out is plain: a claimed mission, a qualified referral of somebody else and a redeemed code lead to one
//! each, and what was granted is revoked when its row says so. A code that was redeemed stays redeemed.

use super::envelope;
use super::label::{Change, Ledger, Target};
use super::workload::{MEMBERS, Step, Workload};

/// A claim, a referral or a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) ledger: Ledger,
    pub(super) row: u32,
    /// The member; beside a referrer the referee. A code is nobody's until somebody redeems it, and some stay nobody's.
    pub(super) users: [Option<u32>; 2],
    pub(super) merchant: u8,
    pub(super) state: State,
    pub(super) created_us: i64,
    pub(super) redeemed_us: Option<i64>,
    /// Stands in a column that nobody reads.
    pub(super) note: u16,
    commit_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Claimed,
    Revoked,
    Pending,
    Qualified,
    Cancelled,
    Issued,
    Redeemed,
    Expired,
    Void,
}

const OPEN_TICKETS: usize = 1024;

impl Workload {
    /// A new ticket, or the next state of one.
    pub(super) fn ticket(&mut self, now_ms: i64) -> Step {
        if self.tickets.is_empty() || self.random.bool() {
            let ledger = [Ledger::Claims, Ledger::Referrals, Ledger::Codes][self.random.usize(0..3)];
            let ticket = self.new_ticket(ledger, now_ms);
            return self.ticket_step(None, ticket);
        }
        let place = self.random.usize(0..self.tickets.len());
        let before = self.tickets.swap_remove(place);
        let mut after = before;
        after.commit_ms = now_ms.max(before.commit_ms + 1);
        let likely = self.random.u32(0..10) < 8;
        after.state = match before.state {
            // A column that nobody reads.
            State::Claimed | State::Pending | State::Qualified | State::Issued if self.random.u32(0..5) == 0 => {
                after.note = after.note.wrapping_add(1);
                before.state
            }
            State::Pending if likely => State::Qualified,
            State::Pending | State::Qualified => State::Cancelled,
            State::Issued if likely => {
                self.redeem(&mut after);
                State::Redeemed
            }
            State::Issued => State::Expired,
            State::Redeemed => State::Void,
            State::Claimed => State::Revoked,
            ended @ (State::Revoked | State::Cancelled | State::Expired | State::Void) => ended,
        };
        self.ticket_step(Some(before), after)
    }

    pub(super) fn new_ticket(&mut self, ledger: Ledger, now_ms: i64) -> Ticket {
        let (first, second) = (self.random.u32(0..MEMBERS), self.random.u32(0..MEMBERS));
        let kind = self.random.u32(0..20);
        let mut ticket = Ticket {
            ledger,
            row: self.number(ledger),
            users: [Some(first), None],
            merchant: self.some_merchant(),
            state: State::Issued,
            created_us: now_ms * 1000 + self.random.i64(0..1000),
            redeemed_us: None,
            note: self.random.u16(..),
            commit_ms: now_ms,
        };
        match ledger {
            Ledger::Referrals => {
                // Some try to refer themselves.
                let referee = if self.random.u32(0..10) == 0 { first } else { second };
                ticket.users = [Some(first), Some(referee)];
                ticket.state = match kind {
                    0..13 => State::Pending,
                    13..19 => State::Qualified,
                    _ => State::Cancelled,
                };
            }
            Ledger::Codes => {
                ticket.users = [None, None];
                if kind < 8 {
                    self.redeem(&mut ticket);
                    ticket.state = State::Redeemed;
                }
            }
            Ledger::Claims | Ledger::Purchases | Ledger::Wallet | Ledger::Forms => {
                ticket.state = if kind == 0 { State::Revoked } else { State::Claimed };
            }
        }
        ticket
    }

    fn redeem(&mut self, code: &mut Ticket) {
        let member = self.random.u32(0..MEMBERS);
        code.users = [(self.random.u32(0..10) > 0).then_some(member), None];
        code.redeemed_us = Some(code.commit_ms * 1000 + self.random.i64(0..1000));
    }

    fn ticket_step(&mut self, before: Option<Ticket>, after: Ticket) -> Step {
        let is_owed = after.is_owed();
        let takes_back = after.ledger != Ledger::Codes && before.is_some_and(|before| before.is_owed());
        let before_image = before.map(|before| envelope::ticket(&before, self.merchant_id(before.merchant)));
        let after_image = envelope::ticket(&after, self.merchant_id(after.merchant));
        let sent = self.sent(after.ledger, after.row, (before_image, after_image), after.commit_ms);
        if !after.state.is_last() {
            if self.tickets.len() >= OPEN_TICKETS {
                let place = self.random.usize(0..self.tickets.len());
                self.tickets.swap_remove(place);
            }
            self.tickets.push(after);
        }
        let change = Change {
            ledger: after.ledger,
            row: after.row,
            users: after.users,
            merchant: after.merchant,
            lsn: sent.lsn,
            commit_ms: after.commit_ms,
            target: (is_owed || takes_back).then_some(Target {
                amount: i64::from(is_owed),
                due_us: None,
            }),
            tier: None,
            mission: None,
        };
        self.give(sent, change)
    }
}

impl Ticket {
    fn is_owed(&self) -> bool {
        match self.state {
            State::Claimed | State::Redeemed => true,
            State::Qualified => self.users[0] != self.users[1],
            State::Revoked | State::Pending | State::Cancelled | State::Issued | State::Expired | State::Void => false,
        }
    }
}

impl State {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Revoked => "revoked",
            Self::Pending => "pending",
            Self::Qualified => "qualified",
            Self::Cancelled => "cancelled",
            Self::Issued => "issued",
            Self::Redeemed => "redeemed",
            Self::Expired => "expired",
            Self::Void => "void",
        }
    }

    const fn is_last(self) -> bool {
        matches!(self, Self::Revoked | Self::Cancelled | Self::Expired | Self::Void)
    }
}
