//! The parallel trip booking, to each of its fates, with the ledgers of all participants.

mod agencies;
mod tour;

use agencies::Manner::{Refuse, Silent};
use tour::Tour;

/// The steps of the branches, each with its service and the key of its command. The last one follows on the
/// one before.
const BOOKINGS: [(&str, &str, &str); 4] = [
    ("book_hotel", "hotels", "room.book"),
    ("book_flight", "flights", "seat.book"),
    ("book_car", "cars", "car.book"),
    ("insure_car", "insurances", "policy.issue"),
];

#[test]
fn a_trip_is_booked_once_with_or_without_a_car_however_often_it_is_asked_for() {
    let mut tour = Tour::begin("booked");
    tour.request("with", &[]);
    tour.request_without_car("without");
    tour.becomes("with", "completed");
    tour.request("with", &[]);
    tour.fault("duplicate_start");
    tour.end(&[("with", "completed"), ("without", "completed")]);
}

#[test]
fn when_a_branch_is_refused_the_others_are_awaited_and_undone() {
    let mut tour = Tour::begin("refused");
    let trip = |refused: usize| format!("no-{}", BOOKINGS[refused].1);
    // Those that are under way when the refusal comes; an insurance has its car booked before it.
    let others = |refused: usize| (0..3).filter(move |&other| other != refused && (refused, other) != (3, 2));
    for (refused, (_, _, key)) in BOOKINGS.iter().enumerate() {
        let silent = others(refused).map(|other| (BOOKINGS[other].2, Silent));
        tour.request(&trip(refused), &silent.chain([(*key, Refuse)]).collect::<Vec<_>>());
    }
    for (refused, (step, ..)) in BOOKINGS.iter().enumerate() {
        let trip = trip(refused);
        tour.step_becomes(&trip, step, "failed");
        tour.becomes(&trip, "running");
        for other in others(refused) {
            tour.step_becomes(&trip, BOOKINGS[other].0, "dispatched");
            tour.agencies.speak(&trip, BOOKINGS[other].2);
        }
        tour.becomes(&trip, "compensated");
        for (other, (_, service, _)) in BOOKINGS.iter().enumerate().take(3) {
            let expected = if other == refused { (0, 0) } else { (1, 1) };
            assert_eq!(tour.agencies.booked(service, &trip), expected, "{service} for {trip}");
        }
        assert_eq!(tour.agencies.booked("insurances", &trip), (0, 0), "{trip}");
        assert_eq!(tour.agencies.booked("payments", &trip), (0, 0), "{trip}");
    }
    let trips: Vec<_> = (0..BOOKINGS.len()).map(trip).collect();
    tour.end(&trips.iter().map(|trip| (trip.as_str(), "compensated")).collect::<Vec<_>>());
}

#[test]
fn a_branch_that_stays_silent_is_given_up_and_undone_with_the_others_as_it_may_have_happened() {
    let mut tour = Tour::impatient("silent");
    let trip = |silent: usize| format!("silent-{}", BOOKINGS[silent].1);
    for (silent, (_, _, key)) in BOOKINGS.iter().enumerate() {
        tour.request(&trip(silent), &[(*key, Silent)]);
    }
    for (silent, (step, service, _)) in BOOKINGS.iter().enumerate() {
        tour.becomes(&trip(silent), "compensated");
        assert_eq!(tour.agencies.booked(service, &trip(silent)), (1, 1), "it was done, and undone");
        let history = tour.show(&trip(silent)).unwrap()["history"].to_string();
        assert!(history.contains(&format!(r#""given_up","step":"{step}""#)), "{history}");
    }
    let trips: Vec<_> = (0..BOOKINGS.len()).map(trip).collect();
    tour.end(&trips.iter().map(|trip| (trip.as_str(), "compensated")).collect::<Vec<_>>());
}

#[test]
fn a_refused_charge_undoes_all_branches() {
    let mut tour = Tour::begin("charge");
    tour.request("broke", &[("trip.charge", Refuse)]);
    tour.becomes("broke", "compensated");
    for (_, service, _) in BOOKINGS {
        assert_eq!(tour.agencies.booked(service, "broke"), (1, 1), "{service}");
    }
    tour.end(&[("broke", "compensated")]);
}

#[test]
fn a_silent_charge_is_not_guessed_but_parked_until_a_person_says_what_became_of_it() {
    let mut tour = Tour::impatient("unknown");
    tour.request("paid", &[("trip.charge", Silent)]);
    tour.becomes("paid", "parked");
    tour.site.printed(&["resolve", "paid", "--to", "succeeded", "--reason", "seen on the statement"]);
    tour.end(&[("paid", "completed")]);
}

#[test]
fn a_trip_that_is_cancelled_while_its_branches_are_out_is_undone() {
    let mut tour = Tour::begin("cancelled");
    tour.request("ill", &[("room.book", Silent), ("policy.issue", Silent)]);
    tour.step_becomes("ill", "book_flight", "succeeded");
    tour.step_becomes("ill", "insure_car", "dispatched");
    tour.cancel("ill");
    tour.fault("cancellation");
    for (key, step) in [("room.book", "book_hotel"), ("policy.issue", "insure_car")] {
        tour.step_becomes("ill", step, "dispatched");
        tour.agencies.speak("ill", key);
    }
    tour.becomes("ill", "compensated");
    for (_, service, _) in BOOKINGS {
        assert_eq!(tour.agencies.booked(service, "ill"), (1, 1), "{service}");
    }
    assert_eq!(tour.show("ill").unwrap()["error"]["code"], "CANCELLED");
    tour.end(&[("ill", "compensated")]);
}

#[test]
fn a_refused_undoing_parks_the_trip_until_a_person_has_seen_to_it() {
    let mut tour = Tour::begin("stuck");
    tour.request("stuck", &[("trip.charge", Refuse), ("seat.cancel", Refuse)]);
    tour.becomes("stuck", "parked");
    assert_eq!(tour.agencies.booked("flights", "stuck"), (1, 0));
    tour.agencies.undo_by_hand("stuck", "seat.cancel");
    let told =
        tour.site.printed(&["resolve", "stuck", "--to", "succeeded", "--reason", "cancelled by phone"]);
    assert!(told.starts_with("trip stuck: resolve_succeeded"), "{told}");
    tour.end(&[("stuck", "compensated")]);
}

#[test]
fn kills_in_the_middle_of_the_branches_and_of_their_undoing_lose_nothing_and_do_nothing_twice() {
    let mut tour = Tour::begin("killed");
    let trips = |what: &str| (1..=8).map(|number| format!("{what}-{number}")).collect::<Vec<_>>();
    let (forward, back) = (trips("forward"), trips("back"));
    for (going, coming) in forward.iter().zip(&back) {
        tour.request(going, &[("room.book", Silent)]);
        tour.request(coming, &[("trip.charge", Refuse), ("seat.cancel", Silent)]);
    }
    for (going, coming) in forward.iter().zip(&back) {
        tour.step_becomes(going, "book_hotel", "dispatched");
        tour.step_becomes(coming, "book_flight", "compensating");
    }
    tour.kill();
    // Half of the answers come while nobody is there to hear them.
    let speak = |tour: &Tour, trips: std::ops::Range<usize>| {
        for trip in trips {
            tour.agencies.speak(&forward[trip], "room.book");
            tour.agencies.speak(&back[trip], "seat.cancel");
        }
    };
    speak(&tour, 0..4);
    tour.start_again();
    speak(&tour, 4..8);
    tour.kill();
    tour.start_again();
    let going = forward.iter().map(|trip| (trip.as_str(), "completed"));
    tour.end(&going.chain(back.iter().map(|trip| (trip.as_str(), "compensated"))).collect::<Vec<_>>());
}
