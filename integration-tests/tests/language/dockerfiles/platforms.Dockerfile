FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETPLATFORM
RUN make $TARGETPLATFORM
FROM scratch
COPY --from=build /made /
