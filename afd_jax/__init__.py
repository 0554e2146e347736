"""Online and adversarial feature-map knowledge distillation in JAX and Flax.

Start reading at `afd_jax.graph` (who learns from whom), `afd_jax.losses` (what is learned) and
`afd_jax.engine.step` (one update). Nothing heavy is imported here: `import afd_jax.losses` needs only JAX.
"""

__version__ = "0.1.0"
