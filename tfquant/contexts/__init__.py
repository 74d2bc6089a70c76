"""Context models: transmit a latent part by part, with parameters from the parts before.

Every context is a `base.Context` with the method `transmit(y, exchange, model, features)`. In a
decoder, `y` is None.

| context             | parts                                          | module         |
|---------------------|------------------------------------------------|----------------|
| SerialContext       | single elements in raster order                | `serial`       |
| SliceContext        | slices of channels                             | `slices`       |
| SpaceChannelContext | halves of a checkerboard in groups of channels | `space_channel`|

The other modules have their layers: `causal`, `checkerboard` and `networks`.
"""
