# Robust covariances by sandwich and survey's answers for weights, at estimates polished to the last digits, for
# tests/test_robust.py and tests/test_weights.py. Writes robust.json beside itself.
suppressMessages({library(sandwich); library(survey); library(MASS); library(statmod); library(boot)})
options(digits = 17, warn = 1)
set.seed(9)
n <- 60
group <- sample(rep(c("a", "b", "c"), c(18, 20, 22)))
shop <- sample(1:9, n, TRUE)
region <- sample(letters[1:12], n, TRUE)
x <- round(runif(n, -1, 1), 3)
z <- rep(0:1, n / 2)
X <- cbind(1, x, z, x + 2 * z)                       # the last column is aliased
w <- round(runif(n, 0.5, 2), 2); w[c(5, 17)] <- 0
offset <- round(runif(n, -0.2, 0.2), 3)
trials <- sample(8:20, n, TRUE)
f <- sample(0:3, n, TRUE)
eta <- 0.3 + 0.5 * x - 0.4 * z
mu <- exp(eta + 0.8)
y <- list(
  gaussian = round(eta + rnorm(n, 0, 0.5 + 0.4 * abs(x)), 4),
  binomial = rbinom(n, trials, plogis(eta)) / trials,
  poisson = rnbinom(n, mu = mu, size = 2),
  gamma = round(rgamma(n, 3, 3 / mu), 4) + 1e-3,
  negative_binomial = rnbinom(n, mu = mu, size = 1.5))
family <- list(gaussian_identity = gaussian(), binomial_logit = binomial(), binomial_cloglog = binomial("cloglog"),
  poisson_log = poisson(), gamma_log = Gamma("log"),
  negative_binomial_log = negative.binomial(2))
tight <- glm.control(epsilon = 1e-15, maxit = 200)

fit <- function(name, rows, weights, use_offset, aliased) {
  response <- sub("_[a-z]+$", "", name)
  d <- data.frame(y = y[[response]], x1 = x, x2 = z, x3 = x + 2 * z, w = weights, o = if (use_offset) offset else 0)[rows, ]
  formula <- if (aliased) y ~ x1 + x2 + x3 else y ~ x1 + x2
  # The NA pattern of the usual tolerance; at a tight one R misses aliased columns.
  if (aliased) stopifnot(is.na(coef(glm(formula, family[[name]], d, w, offset = o))[4]))
  start <- coef(glm(y ~ x1 + x2, family[[name]], d, w, offset = o))
  for (i in 1:30) {                                  # each at least two steps further
    model <- suppressWarnings(glm(y ~ x1 + x2, family[[name]], d, w, offset = o, control = tight, start = start))
    start <- coef(model)
  }
  model
}

cases <- list()
for (name in names(family)) for (part in c("all", "a", "b", "c")) {
  rows <- if (part == "all") 1:n else which(group == part)
  base <- if (grepl("binomial_(logit|cloglog)", name) && !grepl("negative", name)) trials else rep(1, n)
  for (kind in if (name == "binomial_logit") c("plain", "weights") else "weights") {
    weights <- if (kind == "plain") base else base * w
    keep <- rows[weights[rows] > 0]
    m <- fit(name, keep, weights, kind == "weights", kind == "weights")
    cov <- lapply(c("HC0", "HC1", "HC2", "HC3", "HC4"), function(t) vcovHC(m, t))
    names(cov) <- c("HC0", "HC1", "HC2", "HC3", "HC4")
    cl <- data.frame(shop, region)[keep, ]
    cov$cluster <- vcovCL(m, cl$shop)
    cov$cluster_HC1 <- vcovCL(m, cl$shop, type = "HC1", cadjust = FALSE)
    cov$cluster_two <- vcovCL(m, cl)
    cases[[length(cases) + 1]] <- list(name = name, part = part, kind = kind, coefficients = unname(coef(m)),
      hat = unname(hatvalues(m)), covariance = lapply(cov, function(v) unname(v[lower.tri(v, TRUE)])))
  }
}
data <- list(group = group, shop = shop, region = region, x = x, z = z, weights = w, offset = offset, trials = trials,
  frequency = f, y = y)
text <- jsonlite::toJSON(list(data = data, cases = cases), digits = NA, auto_unbox = TRUE)
writeLines(text, "tests/reference/robust.json")
