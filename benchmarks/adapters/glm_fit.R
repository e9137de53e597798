# glm.fit in a loop over fits of any number of rows; see r.py and r_glm.py.
family <- arguments[3]
sizes <- read("sizes")
rows <- split(seq_len(sum(sizes)), rep(seq_along(sizes), sizes))
X <- matrix(read("X"), ncol = p, byrow = TRUE)
y <- read("y")
weights <- read("weights")
offset <- read("offset")
theta <- read("theta")
family_of <- function(i) {
  switch(family,
    gaussian = gaussian(), binomial = binomial(), poisson = poisson(), gamma = Gamma("log"),
    negative_binomial = MASS::negative.binomial(theta[i]))
}
fits <- lapply(seq_along(rows), function(i) {
  part <- function(values, otherwise) if (is.null(values)) rep(otherwise, length(rows[[i]])) else values[rows[[i]]]
  list(X = X[rows[[i]], , drop = FALSE], y = y[rows[[i]]], weights = part(weights, 1), offset = part(offset, 0),
       family = family_of(i))
})
rm(X, y, weights, offset)
began <- proc.time()[["elapsed"]]
coefficients <- suppressWarnings(lapply(fits, function(f) {
  glm.fit(f$X, f$y, weights = f$weights, offset = f$offset, family = f$family)$coefficients
}))
seconds <- proc.time()[["elapsed"]] - began
writeBin(as.double(unlist(coefficients)), file.path(folder, "coefficients.bin"))
writeLines(format(seconds, digits = 15), file.path(folder, "seconds.txt"))
