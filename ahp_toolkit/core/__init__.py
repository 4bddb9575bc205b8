"""The ground: records, masks, images, registry, store, pipeline. Imports nothing of ours above it."""
