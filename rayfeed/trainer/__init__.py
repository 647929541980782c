"""The trainer: Keras' own `fit`, fed by streams, in an actor or in the caller's process."""
