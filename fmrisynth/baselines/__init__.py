"""What the model is compared with: generators that a user could have written instead."""
