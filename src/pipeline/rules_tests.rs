//! When rules are read again, and for which records they answer. Time is paused.

use tokio::sync::mpsc;

use super::*;
use crate::loyalty::Programs;

fn rules() -> Arc<Rules> {
    Arc::new(Rules::new(Arc::new(Programs::default()), None))
}

/// Tells when it is asked, and answers what it is told.
struct Scripted {
    asked: mpsc::UnboundedSender<Instant>,
    answers: mpsc::UnboundedReceiver<Result<Arc<Rules>, LedgerError>>,
}

struct Script {
    asked: mpsc::UnboundedReceiver<Instant>,
    answers: mpsc::UnboundedSender<Result<Arc<Rules>, LedgerError>>,
}

impl ReadRules for Scripted {
    fn read(&mut self) -> BoxFuture<'_, Result<Arc<Rules>, LedgerError>> {
        async move {
            self.asked.send(Instant::now()).expect("the test listens");
            self.answers.recv().await.expect("the test answers")
        }
        .boxed()
    }
}

impl Script {
    /// How long after the start the source was asked the next time, in seconds.
    async fn asked_after(&mut self, start: Instant) -> u64 {
        self.asked.recv().await.expect("asked").duration_since(start).as_secs()
    }

    fn answer(&self, answer: Result<Arc<Rules>, LedgerError>) {
        self.answers.send(answer).expect("the book lives");
    }
}

fn script() -> (Script, Box<Scripted>) {
    let (asked, listens) = mpsc::unbounded_channel();
    let (answers, answered) = mpsc::unbounded_channel();
    let script = Script {
        asked: listens,
        answers,
    };
    let source = Scripted {
        asked,
        answers: answered,
    };
    (script, Box::new(source))
}

fn away() -> Result<Arc<Rules>, LedgerError> {
    Err(LedgerError::Unavailable("away".to_owned()))
}

#[tokio::test(start_paused = true)]
async fn fixed_rules_are_always_new() {
    let fixed = rules();
    let book = RuleBook::fixed(Arc::clone(&fixed));
    assert!(Arc::ptr_eq(&book.newer_than(Instant::now()).await, &fixed));
    assert!(Arc::ptr_eq(&book.current(), &fixed));
}

#[tokio::test(start_paused = true)]
async fn rules_are_read_again_every_thirty_seconds() {
    let (mut script, source) = script();
    let start = Instant::now();
    let book = RuleBook::refreshed(rules(), Some(start), source);
    let newer = rules();
    for seconds in [30, 60, 90] {
        assert_eq!(script.asked_after(start).await, seconds);
        script.answer(Ok(Arc::clone(&newer)));
    }
    assert_eq!(script.asked_after(start).await, 120);
    assert!(Arc::ptr_eq(&book.current(), &newer));
}

#[tokio::test(start_paused = true)]
async fn one_refresh_answers_for_every_record_fetched_before_it_began() {
    let (mut script, source) = script();
    let start = Instant::now();
    let book = RuleBook::refreshed(rules(), Some(start), source);
    tokio::time::advance(Duration::from_secs(7)).await;
    let fetched = Instant::now();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let book = book.clone();
                async move { book.newer_than(fetched).await }
            })
        })
        .collect();
    // At once would be the same instant as the fetch; nobody can tell which came first.
    tokio::task::yield_now().await;
    assert_eq!(script.asked_after(start).await, 7);
    let newer = rules();
    script.answer(Ok(Arc::clone(&newer)));
    // It began at the very instant of the fetch, which proves nothing: there is a second one, 5 s later.
    assert_eq!(script.asked_after(start).await, 12);
    script.answer(Ok(Arc::clone(&newer)));
    for waiting in waiting {
        assert!(Arc::ptr_eq(&waiting.await.expect("ends"), &newer));
    }
    assert!(Arc::ptr_eq(&book.newer_than(fetched).await, &newer));
    assert_eq!(script.asked_after(start).await, 42, "nobody wants a third one");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_does_not_answer_for_a_record_fetched_since() {
    let (mut script, source) = script();
    let start = Instant::now();
    let book = RuleBook::refreshed(rules(), None, source);
    assert_eq!(script.asked_after(start).await, 0, "a snapshot is refreshed at once");
    tokio::time::advance(Duration::from_secs(1)).await;
    let waiting = tokio::spawn({
        let (book, fetched) = (book.clone(), Instant::now());
        async move { book.newer_than(fetched).await }
    });
    tokio::task::yield_now().await;
    script.answer(Ok(rules()));
    assert_eq!(script.asked_after(start).await, 5, "never two within 5 s");
    assert!(!waiting.is_finished());
    let newer = rules();
    script.answer(Ok(Arc::clone(&newer)));
    assert!(Arc::ptr_eq(&waiting.await.expect("ends"), &newer));
}

#[tokio::test(start_paused = true)]
async fn refreshes_that_fail_back_off_and_the_last_rules_stay_in_force() {
    let (mut script, source) = script();
    let (start, first) = (Instant::now(), rules());
    let book = RuleBook::refreshed(Arc::clone(&first), Some(start), source);
    let mut expected = 30;
    for pause in [5, 10, 20, 40, 60, 60] {
        assert_eq!(script.asked_after(start).await, expected);
        script.answer(away());
        expected += pause;
    }
    // Who waits is not told of a failure, and does not hurry anybody.
    let waiting = tokio::spawn({
        let (book, fetched) = (book.clone(), Instant::now());
        async move { book.newer_than(fetched).await }
    });
    assert_eq!(script.asked_after(start).await, expected);
    assert!(!waiting.is_finished());
    assert!(Arc::ptr_eq(&book.current(), &first));
    let newer = rules();
    script.answer(Ok(Arc::clone(&newer)));
    assert!(Arc::ptr_eq(&waiting.await.expect("ends"), &newer));
}

#[tokio::test(start_paused = true)]
async fn nobody_refreshes_for_a_book_that_is_gone() {
    let (mut script, source) = script();
    let book = RuleBook::refreshed(rules(), Some(Instant::now()), source);
    drop(book);
    assert!(script.asked.recv().await.is_none());
}
