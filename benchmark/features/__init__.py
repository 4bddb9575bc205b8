"""What metrics compare: counts of pixels, Inception and VGG features, Frechet distances."""
