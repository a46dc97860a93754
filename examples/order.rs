//! The order service: places orders. `order --help` lists what an order may be; which customers and
//! products make the other services misbehave stands in `examples/common/mod.rs`.

mod common;

use std::error::Error;
use std::io::stdin;

use clap::Parser;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use serde_json::{Value, json};
use uuid::Uuid;

/// Places orders: publishes `order.placed` on the exchange `orders` of the broker at AMQP_URL.
#[derive(Parser)]
struct Order {
    /// Who orders
    #[arg(long, default_value = "alice")]
    customer: String,
    /// What is ordered
    #[arg(long, default_value = "BOOK")]
    product: String,
    /// How many
    #[arg(long, default_value_t = 1)]
    quantity: u32,
    /// Price of one
    #[arg(long, default_value_t = 19.99)]
    price: f64,
    /// Id of the order; a repeat of an id is no second order [default: a new one]
    #[arg(long)]
    order_id: Option<String>,
    /// Number of orders to place; their ids end in -1, -2, ...
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Publish something that is no order, as a faulty service may
    #[arg(long)]
    garbage: bool,
    /// Read orders from the standard input, a line of such flags each
    #[arg(long)]
    stdin: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let order = Order::parse();
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    common::declare_exchange(&channel, "orders").await?;

    if order.stdin {
        for line in stdin().lines() {
            let line = line?;
            place(&channel, &Order::try_parse_from(["order"].into_iter().chain(line.split_whitespace()))?)
                .await?;
        }
    } else {
        place(&channel, &order).await?;
    }
    connection.close(200, "done".into()).await?;
    Ok(())
}

async fn place(channel: &Channel, order: &Order) -> Result<(), Box<dyn Error>> {
    if order.garbage {
        return publish(channel, "garbage", "this is no order").await;
    }
    let base =
        order.order_id.clone().unwrap_or_else(|| format!("order-{}", chrono::Utc::now().timestamp_micros()));
    for number in 1..=order.count {
        let order_id = if order.count == 1 { base.clone() } else { format!("{base}-{number}") };
        let event_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, order_id.as_bytes()).to_string();
        publish(channel, &event_id, &placed(order, &order_id, &event_id).to_string()).await?;
        println!("order: placed {order_id}");
    }
    Ok(())
}

/// Publishes and awaits the broker's confirm.
async fn publish(channel: &Channel, event_id: &str, body: &str) -> Result<(), Box<dyn Error>> {
    let properties = common::properties().with_message_id(event_id.into());
    // Mandatory: what no queue wants comes back, rather than vanish.
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let (exchange, key) = ("orders".into(), "order.placed".into());
    match channel.basic_publish(exchange, key, options, body.as_bytes(), properties).await?.await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) => {
            Err("nobody takes orders: is sagamq running with sagas/order.yaml?".into())
        }
        _ => Err(format!("the broker did not keep event {event_id}: place the order again").into()),
    }
}

fn placed(order: &Order, order_id: &str, event_id: &str) -> Value {
    let total = (f64::from(order.quantity) * order.price * 100.0).round() / 100.0;
    json!({
        "event_id": event_id,
        "event_type": "OrderPlaced",
        "timestamp": common::now(),
        "version": 1,
        "order_id": order_id,
        "customer_id": order.customer,
        "customer_email": format!("{}@example.com", order.customer),
        "items": [{
            "product_id": order.product,
            "product_name": order.product.to_lowercase(),
            "quantity": order.quantity,
            "price": order.price,
        }],
        "total_amount": total,
    })
}
